# SPDX-License-Identifier: Apache-2.0
"""What `fresco resolve` does: the same functions as the window's, from a terminal (Resolve Studio)."""
from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from fresco_davinci.clip import Clip, Progress, Record, Wish
from fresco_davinci.scripting import resolve_from_terminal
from fresco_davinci.stylisation import Line, again, place, read_record, stylise
from fresco_davinci.timeline import Host, collect, records
from fresco_protocol.errors import UsageError
from fresco_protocol.shot import FrameRange, Look

TICK = 0.2  # seconds

Say = Callable[[str, Progress], None]  # name of the clip, how far it is
Note = Callable[[str], None]  # what the user should know, said at the end, whatever it is


def stylise_clips(wish: Wish, line: Line, say: Say, note: Note, *, still: bool = False) -> list[Record]:
    """Stylises the selected clips or the one under the playhead; gives their records.

    still: only the frame under the playhead. Raises the first clip's FrescoError; the others are then cancelled.
    """
    with _host(note) as host:
        clips = collect(host)
        if still:
            clips, wish = _at_playhead(clips, wish)
        return _driven([(clip.name, stylise(host, clip, wish, line)) for clip in clips], say)


def redo(change: Callable[[Look], Look], line: Line, say: Say, note: Note) -> list[Record]:
    """Another version of the results that are selected or under the playhead; `change` makes the new look."""
    with _host(note) as host:
        found = {path: read_record(path) for path in records(host)}
        return _driven([(record.clip.name, again(host, path, change(record.wish.look), line))
                        for path, record in found.items()], say)


def place_again(path: str, note: Note) -> list[Record]:
    """Places what a record's job delivered, when Resolve or the script ended before it could."""
    with _host(note) as host:
        return [place(host, read_record(path))]


@contextmanager
def _host(note: Note) -> Iterator[Host]:
    host = Host(resolve_from_terminal())
    try:
        yield host
    finally:
        for text in host.notices:
            note(text)


def running_resolve() -> Any:
    """The object `resolve`, for the doctor. Raises HostRefused."""
    return resolve_from_terminal()


def _at_playhead(clips: tuple[Clip, ...], wish: Wish) -> tuple[tuple[Clip, ...], Wish]:
    for clip in clips:
        if clip.playhead is not None:
            frame = FrameRange(first=clip.playhead, last=clip.playhead)
            return (clip,), replace(wish, destination=None, part=frame, handles=0)
    raise UsageError("the playhead does not stand on the clip", where=clips[0].name,
                     remedy="Put it there, on the Edit or the Color page.")


def _driven(runs: Sequence[tuple[str, Generator[Progress, None, Record]]], say: Say) -> list[Record]:
    """Drives all clips in turn, a step each, to their end."""
    live, found = list(runs), []
    try:
        while live:
            for run in list(live):
                name, steps = run
                try:
                    say(name, next(steps))
                except StopIteration as end:
                    live.remove(run)
                    found.append(end.value)
            if live:
                time.sleep(TICK)
    finally:
        for _, steps in live:
            steps.close()
    return found
