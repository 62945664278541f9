# SPDX-License-Identifier: Apache-2.0
"""One shot, from its plate to its delivery. See backend/README.md for the rooms."""
