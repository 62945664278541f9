# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's line to the server: one client, asked from Blender's timer, that comes back by itself."""
from __future__ import annotations

import time
from typing import Optional, TypeVar

import bpy

from fresco_protocol.client import Client
from fresco_protocol.connection import default_file, host_and_port, read_connection
from fresco_protocol.errors import FrescoError, ServerError, ServerMissing
from fresco_protocol.events import Event
from fresco_protocol.messages import Reply, Request

PATIENCE = 2.0  # seconds that the interface may wait for an answer; on one machine it takes milliseconds
PAUSE, LONG_PAUSE = 0.5, 5.0  # seconds until the next attempt: nobody there; somebody who keeps silent
LOOPBACK = ("127.0.0.1", "localhost", "::1")

R = TypeVar("R", bound=Reply)


def software() -> str:
    """Who asks, for the server's log."""
    return f"fresco-blender (Blender {bpy.app.version_string})"


def check_allowed(connection_file: Optional[str]) -> None:
    """Raises ServerError where the server is on another machine and Blender is told to stay offline."""
    host, _ = host_and_port(read_connection(connection_file or default_file()).endpoint)
    if host not in LOOPBACK and not bpy.app.online_access:
        raise ServerError("the server is on another machine, and Blender is told to stay offline", where=host,
                          remedy="Allow Online Access in Preferences > System.")


class Link:
    """A line that may be down. trouble: why there is no connection now; None when all is well.

    since, journal: the events that were seen, so that none is missed and none comes twice.
    """

    def __init__(self) -> None:
        self.trouble: Optional[FrescoError] = None
        self.since = 0
        self.journal: Optional[str] = None
        self._client: Optional[Client] = None
        self._file: Optional[str] = None
        self._next_attempt = 0.0

    @property
    def is_up(self) -> bool:
        """Whether the server answered and was not lost since."""
        return self._client is not None and self._client.trouble is None and self.trouble is None

    def open(self, connection_file: Optional[str]) -> None:
        """Begins to watch the server of this connection file; does nothing when it does so already."""
        same = connection_file == self._file
        if same and (self._client is not None or time.monotonic() < self._next_attempt):
            return
        self.close()
        self._file = connection_file
        try:
            check_allowed(connection_file)
            client = Client(connection_file, software=software(), seconds=PATIENCE)
            client.watch(since=self.since, journal=self.journal)
            self._client, self.trouble = client, None
        except FrescoError as error:
            self.trouble = error
            self._next_attempt = time.monotonic() + (PAUSE if isinstance(error, ServerMissing) else LONG_PAUSE)

    def close(self) -> None:
        """Hangs up; jobs go on."""
        if self._client is not None:
            self._client.close()
        self._client, self._next_attempt = None, 0.0

    def poll(self) -> list[Event]:
        """The events since the last poll; never waits. A lost server is no error: `trouble` tells."""
        if self._client is None:
            return []
        try:
            events = self._client.poll()
        except FrescoError as error:
            self.close()
            self.trouble = error
            return []
        self.trouble = self._client.trouble
        self.since, self.journal = self._client.last, self._client.journal
        return events

    def request(self, request: Request[R], *, seconds: float = PATIENCE) -> R:
        """The server's reply. Raises what it tells, or ServerMissing."""
        if self._client is None:
            raise self.trouble or ServerMissing("no server is connected", remedy="Start it in the preferences.")
        return self._client.request(request, seconds=seconds)
