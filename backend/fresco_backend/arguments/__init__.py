# SPDX-License-Identifier: Apache-2.0
"""Options of the command line -> Shot. See backend/README.md for the rooms."""
