# SPDX-License-Identifier: Apache-2.0
"""Who watches the jobs, and what each watcher has been sent: cursors in the journal, so that nobody misses an event.

A new event is encoded once, for all. A watcher that is behind (it asked for older events, or does not read fast enough)
gets pages out of the journal, a few at a time, so that requests go on meanwhile. One that takes nothing for `PATIENCE`
seconds loses its watch and is told so when it reads again.
"""
from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from fresco_backend.queue.journal import Journal
from fresco_backend.server.listener import Listener, Peer, Sent
from fresco_backend.server.server_log import Recurring
from fresco_protocol.errors import Busy, MessageMalformed
from fresco_protocol.events import Alive, Event, JobEvent, ServerStopping, WatchEnded
from fresco_protocol.messages import Watch, Watching

PAGE = 50  # events read from the journal at once: a few milliseconds
RECENT = 2_000  # events kept encoded
MOST_WATCHERS = 1_000
PATIENCE = 30.0  # seconds


class _Kept(NamedTuple):
    """A durable event as it is sent."""

    number: int
    job: str
    parts: list[bytes] | None  # None: it does not fit into a message, and is left out


@dataclass(kw_only=True)
class _Watcher:
    """One connection's watch. since: number of the last event that it needs no more. blocked_since: when it began to
    take nothing; None while it does. ended: it lost the watch and shall be told."""

    client: Peer
    job: str | None
    since: int
    blocked_since: float | None = None
    ended: bool = False


@dataclass(kw_only=True)
class Watchers:
    """All watches of the server."""

    journal: Journal
    listener: Listener
    clock: Callable[[], float] = time.monotonic
    say: Callable[[str], None] = lambda _line: None
    _of: OrderedDict[Peer, _Watcher] = field(default_factory=OrderedDict)
    _recent: deque[_Kept] = field(default_factory=lambda: deque(maxlen=RECENT))
    _last: int = -1

    def __post_init__(self) -> None:
        self._last = self.journal.last_number()
        self._name = self.journal.name()
        self._unsaid = Recurring(self.say)

    def __len__(self) -> int:
        return len(self._of)

    def watch(self, client: Peer, request: Watch) -> Watching:
        """Begins a watch in place of the client's earlier one; raises Busy when there are too many."""
        self.gather()
        if client not in self._of and len(self._of) >= MOST_WATCHERS:
            raise Busy(f"{len(self._of)} clients watch already", remedy="Close some of them.")
        since = min(request.since, self._last) if request.journal in (None, self._name) else 0
        self._of[client] = _Watcher(client=client, job=request.job, since=since)
        return Watching(since=since, journal=self._name)

    @property
    def last(self) -> int:
        """The number of the newest event that was gathered."""
        return self._last

    def gather(self) -> None:
        """Takes the events that were written since the last time."""
        while events := self.journal.events(self._last, limit=PAGE):
            self._recent.extend(_Kept(event.number, event.job, self._encoded(event)) for event in events)
            self._last = events[-1].number

    def pump(self) -> bool:
        """Sends what is due: all that is recent, and a page of what is older to the one who waits longest. True when
        somebody is still behind."""
        first = self._recent[0].number if self._recent else self._last + 1
        behind = [watcher for watcher in self._of.values() if watcher.since < self._last and not watcher.ended]
        older = next((watcher for watcher in behind if watcher.since < first - 1), None)
        for watcher in behind:
            if watcher.since >= first - 1:
                self._send_recent(watcher)
        if older is not None:
            self._send_older(older)
            if older.client in self._of:
                self._of.move_to_end(older.client)
        return any(watcher.since < self._last and not watcher.ended for watcher in self._of.values())

    def pass_on(self, event: JobEvent) -> None:
        """Sends a passing event of a job to those who are up to date; its number and time are given here."""
        numbered = type(event)(**{**vars(event), "number": self._last, "time": time.time()})
        parts = self._encoded(numbered)
        if parts is None:
            return
        for watcher in list(self._of.values()):
            if watcher.job in (None, event.job) and watcher.since >= self._last and not watcher.ended:
                self._send(watcher, parts)

    def beat(self) -> None:
        """Tells everybody that the server lives; those whose watch has ended, that it has."""
        now = self.clock()
        alive = self._passing(Alive)
        ended = self._passing(WatchEnded)
        for watcher in list(self._of.values()):
            watcher.ended |= watcher.blocked_since is not None and now - watcher.blocked_since > PATIENCE
            if self._send(watcher, ended if watcher.ended else alive) and watcher.ended:
                del self._of[watcher.client]

    def forget(self) -> None:
        """Ends all watches: their connections are gone."""
        self._of.clear()

    def stop(self) -> None:
        """Tells everybody that the server ends."""
        parts = self._passing(ServerStopping)
        for watcher in list(self._of.values()):
            self._send(watcher, parts)

    def _encoded(self, event: JobEvent) -> list[bytes] | None:
        try:
            return self.listener.encoded(event)
        except MessageMalformed as error:
            self._unsaid.add("too large", f"watchers are not told of an event of job {event.job}: {error}")
            return None

    def _passing(self, kind: type[Event]) -> list[bytes]:
        return self.listener.encoded(kind(number=self._last, time=time.time()))

    def _send_recent(self, watcher: _Watcher) -> None:
        missing = []
        for kept in reversed(self._recent):
            if kept.number <= watcher.since:
                break
            missing.append(kept)
        for kept in reversed(missing):
            if not self._offer(watcher, kept):
                return

    def _send_older(self, watcher: _Watcher) -> None:
        events = self.journal.events(watcher.since, job=watcher.job, limit=PAGE)
        for event in events:
            if not self._offer(watcher, _Kept(event.number, event.job, self._encoded(event))):
                return
        if not events:  # no more of its job, for a page may be short of unreadable ones: what follows is recent
            watcher.since = max(watcher.since, self._last)

    def _offer(self, watcher: _Watcher, kept: _Kept) -> bool:
        """Sends an event if the watcher wants it, and moves on; False when it takes nothing now."""
        wanted = watcher.job in (None, kept.job)
        if wanted and kept.parts is not None and not self._send(watcher, kept.parts):
            return False
        watcher.since = kept.number
        return True

    def _send(self, watcher: _Watcher, parts: list[bytes]) -> bool:
        sent = self.listener.send_parts(watcher.client, parts)
        if sent is Sent.SENT:
            watcher.blocked_since = None
        elif sent is Sent.FULL:
            watcher.blocked_since = watcher.blocked_since or self.clock()
        else:
            self._of.pop(watcher.client, None)
        return sent is Sent.SENT

