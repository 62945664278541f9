# SPDX-License-Identifier: Apache-2.0
"""How to reach the server: the connection file, which it writes at its start and only its owner can read."""
from __future__ import annotations

import json
import os
import re
import shlex
import stat
import sys
from typing import Annotated, Optional

from fresco_protocol.document import Rule, noun, parse_json, read, within, write
from fresco_protocol.errors import ServerError, ServerMissing, ShotError
from fresco_protocol.look import Text

SCHEMA = 1
LARGEST_FILE = 64 * 1024  # bytes

START = 'Start it with "fresco serve".'

_ENDPOINT = re.compile(r"tcp://(?:\[([0-9A-Fa-f:.]+)\]|([0-9A-Za-z.-]+)):([0-9]{1,5})")


def _split(text: str) -> Optional[tuple[str, int]]:
    match = _ENDPOINT.fullmatch(text)
    if match is None or not 0 < int(match.group(3)) < 2**16:
        return None
    return match.group(1) or match.group(2), int(match.group(3))


Endpoint = Annotated[str, Rule("such as tcp://127.0.0.1:40001", lambda text: _split(text) is not None)]
Token = Annotated[str, Rule("of 32 to 128 characters", lambda text: 32 <= len(text) <= 128 and text.isascii())]


@noun
class Connection:
    """Where a server listens, and what proves that a client may speak to it. version: of the server's software."""

    endpoint: Endpoint
    token: Token
    pid: Annotated[int, within(0, 2**62)]
    version: Text
    schema: Annotated[int, within(SCHEMA, SCHEMA)] = SCHEMA

    def __repr__(self) -> str:
        return f"Connection({self.endpoint}, pid {self.pid}, version {self.version})"  # a log must not show the token

    def to_json(self) -> str:
        """The text of the connection file."""
        return json.dumps(write(self), indent=2)


def host_and_port(endpoint: str) -> tuple[str, int]:
    """("127.0.0.1", 40001) of "tcp://127.0.0.1:40001"; raises ServerError if it is no such text."""
    found = _split(endpoint)
    if found is None:
        raise ServerError("no endpoint of a server", where=endpoint, remedy="It looks like tcp://127.0.0.1:40001.")
    return found


def default_file() -> str:
    """The path of the connection file: FRESCO_CONNECTION, else in the user's runtime folder.

    Source: XDG Base Directory Specification 0.8; Apple's File System Programming Guide; Known Folders of Windows.
    """
    stated = os.environ.get("FRESCO_CONNECTION", "").strip()
    return os.path.abspath(os.path.expanduser(stated)) if stated else os.path.join(_runtime_folder(), "connection.json")


def _runtime_folder() -> str:
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        return os.path.join(os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local"), "fresco")
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Caches", "fresco")
    stated = os.environ.get("XDG_RUNTIME_DIR", "")  # the specification ignores a relative one
    return os.path.join(stated if os.path.isabs(stated) else os.path.join(home, ".local", "state"), "fresco")


def read_connection(path: str) -> Connection:
    """The connection of a file.

    Raises ServerMissing if there is none, ServerError if it is damaged or others than its owner may read it.
    """
    try:
        with open(path, encoding="utf-8") as file:
            _check_owner(os.fstat(file.fileno()), path)
            text = file.read(LARGEST_FILE)
        found: Connection = read(parse_json(text), Connection)
    except FileNotFoundError:
        raise ServerMissing("no server runs: there is no connection file", where=path, remedy=START) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ServerError(f"the connection file cannot be read: {error}", where=path, remedy=START) from None
    except ShotError as error:
        raise ServerError(f"the connection file is damaged: {error}", where=path,
                          remedy="Start the server again: it writes a new one.") from None
    return found


def _check_owner(status: os.stat_result, path: str) -> None:
    """Whoever can read the token can give orders; whoever wrote another's file can take them."""
    if sys.platform == "win32":  # the folder of the user guards it: modes mean nothing there
        return
    theirs = status.st_uid not in (os.getuid(), 0)
    if theirs or stat.S_IMODE(status.st_mode) & 0o077:
        found = f"mode {stat.S_IMODE(status.st_mode):04o} and owner {status.st_uid}"
        raise ServerError(f"the connection file has {found}: others than its owner may read it", where=path,
                          remedy="Delete it and start the server again." if theirs else "Make it yours alone, as in: "
                          f"chmod 600 {shlex.quote(path)}. Where others may have read it, start its server again: that "
                          "makes a new token.")
