# SPDX-License-Identifier: Apache-2.0
"""Diffusion models: found, checked, loaded. See backend/README.md for the rooms."""
