# SPDX-License-Identifier: Apache-2.0
"""The studio: plates in, stylised deliveries out. See backend/README.md for the rooms."""

__version__ = "0.1.0"
