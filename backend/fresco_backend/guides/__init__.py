# SPDX-License-Identifier: Apache-2.0
"""What the plate tells about itself: motion, edges, what moves with the camera. See backend/README.md for the rooms."""
