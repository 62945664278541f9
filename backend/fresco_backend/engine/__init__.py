# SPDX-License-Identifier: Apache-2.0
"""The engine: FRESCO (arXiv 2403.12962, arXiv 2512.03905) on tensors alone.

It knows no paths, sockets, prints or settings. Device and precision come from the tensors that are passed in.
"""
