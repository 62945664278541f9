# SPDX-License-Identifier: Apache-2.0
"""The report of a delivery: one page, or one picture, by which somebody who was not in the room can judge a shot."""
