# SPDX-License-Identifier: Apache-2.0
"""The server: between clients, the queue and the workers. See backend/README.md for the rooms."""
