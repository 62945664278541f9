# SPDX-License-Identifier: Apache-2.0
"""The commands of the command line. See backend/README.md for the rooms."""
