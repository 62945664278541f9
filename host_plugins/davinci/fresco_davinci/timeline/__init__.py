# SPDX-License-Identifier: Apache-2.0
"""Resolve's timeline: collect, validate, extract, integrate. The one room that calls Resolve's API.

Every call stands in `api.py` with the release that has it and where its meaning is known from.
"""
from fresco_davinci.timeline.collect import collect, find, here, records
from fresco_davinci.timeline.extract import extract
from fresco_davinci.timeline.host import Host
from fresco_davinci.timeline.integrate import integrate
from fresco_davinci.timeline.probe import objects, probe
from fresco_davinci.timeline.validate import validate

__all__ = ["Host", "collect", "extract", "find", "here", "integrate", "objects", "probe", "records", "validate"]
