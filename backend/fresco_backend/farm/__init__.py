# SPDX-License-Identifier: Apache-2.0
"""A shot as a job of a render farm that is there already: the plan, the bundle, and one small file for each engine."""
