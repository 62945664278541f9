# SPDX-License-Identifier: Apache-2.0
"""Jobs that outlive whoever sent them, on disk. See backend/README.md for the rooms."""
