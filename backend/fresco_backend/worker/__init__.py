# SPDX-License-Identifier: Apache-2.0
"""The child process that owns a device. See backend/README.md for the rooms."""
