# SPDX-License-Identifier: Apache-2.0
"""Pixels between the plate and the engine: colour, mattes, resolution, grain. See backend/README.md for the rooms."""
