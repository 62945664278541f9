# SPDX-License-Identifier: Apache-2.0
"""Frames and movies on disk, read and written. See backend/README.md for the rooms."""
