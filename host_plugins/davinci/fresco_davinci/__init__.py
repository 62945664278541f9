# SPDX-License-Identifier: Apache-2.0
"""Fresco in DaVinci Resolve: the menu script, and the same functions from a terminal."""
