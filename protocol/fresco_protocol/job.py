# SPDX-License-Identifier: Apache-2.0
"""The nouns of the queue: jobs, their states, what went wrong with them, and the workers that run them.

Times are seconds since 1970 UTC.
"""
from __future__ import annotations

import re
from enum import Enum
from typing import Annotated, Optional

from fresco_protocol import errors
from fresco_protocol.document import Rule, noun, within
from fresco_protocol.errors import FrescoError
from fresco_protocol.look import Text

HIGHEST_PRIORITY = 100

JobId = Annotated[str, Rule("of 8 to 64 letters, digits and hyphens",
                            lambda text: re.fullmatch(r"[0-9A-Za-z-]{8,64}", text) is not None)]
ClientKey = Annotated[str, Rule("of 1 to 128 characters", lambda text: 0 < len(text) <= 128)]
Priority = Annotated[int, within(-HIGHEST_PRIORITY, HIGHEST_PRIORITY)]
Count = Annotated[int, within(0, 2**62)]
Seconds = Annotated[float, within(0, 1e12)]


class JobState(Enum):
    """Where a job stands; the last three are ends."""

    SUBMITTED = "submitted"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Stage(Enum):
    """The stages of a render, in order; the unit that each one counts is given."""

    ANALYSE = "analyse"  # frames read for the choice of keyframes
    INVERT = "invert"  # steps of inversion, over all frames
    KEYFRAMES = "keyframes"  # denoising steps, over all windows
    DELIVER = "deliver"  # frames written
    MOVIE = "movie"  # frames encoded into the movie

    @property
    def unit(self) -> str:
        """What it counts, for people: "step" or "frame"."""
        return "step" if self in (Stage.INVERT, Stage.KEYFRAMES) else "frame"


@noun
class Problem:
    """A FrescoError in words, so that the class with its code can be raised again elsewhere."""

    code: Text
    what: str
    where: Optional[str] = None
    remedy: Optional[str] = None
    exit_code: Annotated[int, within(1, 255)] = 1

    @classmethod
    def of(cls, error: FrescoError) -> Problem:
        """The words of an error."""
        return cls(code=error.code, what=error.what, where=error.where, remedy=error.remedy, exit_code=error.exit_code)

    def error(self) -> FrescoError:
        """The error of these words; of class FrescoError, with the code as sent, when this side knows no such code."""
        kinds = {kind.code: kind for kind in vars(errors).values()
                 if isinstance(kind, type) and issubclass(kind, FrescoError)}
        error = kinds.get(self.code, FrescoError).told(self.what, self.where, self.remedy)
        error.code, error.exit_code = self.code, self.exit_code
        return error


@noun
class Job:
    """What the server knows of a job, in short. done, total: frames delivered, and in all once that is known.

    started: of the latest attempt. attempt: counts from 1 when first run. output: path pattern of the delivery.
    """

    id: JobId
    name: Text
    state: JobState
    priority: Priority
    client_key: ClientKey
    output: Text
    submitted: Seconds
    started: Optional[Seconds] = None
    ended: Optional[Seconds] = None
    attempt: Count = 0
    done: Count = 0
    total: Optional[Count] = None
    stage: Optional[Stage] = None
    seconds_left: Optional[Seconds] = None
    problem: Optional[Problem] = None


@noun
class Worker:
    """One device of the server and what it does."""

    device: Text
    job: Optional[JobId] = None
    model: Optional[Text] = None
    memory_bytes: Optional[Count] = None
    memory_total: Optional[Count] = None
