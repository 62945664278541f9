# SPDX-License-Identifier: Apache-2.0
"""The studio: plates in, stylised deliveries out. See backend/README.md for the rooms."""

from fresco_backend.kept_memory import bound_kernels

__version__ = "0.1.0"

bound_kernels()  # here, since torch looks once, when it computes for the first time, wherever that is
