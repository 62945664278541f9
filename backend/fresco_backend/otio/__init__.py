# SPDX-License-Identifier: Apache-2.0
"""Timelines of other editing programs, by OpenTimelineIO: clips become shots, and results go back into the timeline."""
