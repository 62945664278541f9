# SPDX-License-Identifier: Apache-2.0
"""What people see in a terminal. See backend/README.md for the rooms."""
