# SPDX-License-Identifier: Apache-2.0
"""The language of Fresco for post: shots, and what can go wrong with them. Standard library only."""
