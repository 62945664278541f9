# SPDX-License-Identifier: Apache-2.0
"""`fresco serve` and `fresco stop`."""
from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fresco_protocol.errors import UsageError

if TYPE_CHECKING:
    from fresco_backend.server.server import Server

SERVE = """\
Runs the server in this terminal: it queues jobs durably and renders them, one at a time on each device. Ctrl-C stops
it; its jobs go on at the next start. It reads and writes in its roots only, and listens on this machine only."""

KEYS = """\
Makes a pair of keys for a client on another machine, and the server's own where there are none. Copy the two files that
it names to that machine, into one folder, and set FRESCO_CLIENT_KEY there to the secret one."""


def add_serve(commands: Any) -> None:
    """Adds the two commands."""
    command = commands.add_parser("serve", help="run the server that queues and renders jobs", description=SERVE)
    command.add_argument("--root", metavar="DIR", type=Path, action="append", default=[],
                         help="folder in which jobs may read and write; may be repeated (default: FRESCO_ROOTS, else "
                              "home, temporary and current folder)")
    command.add_argument("--port", type=int, default=0, help="default: any free one")
    command.add_argument("--device", metavar="NAME", action="append", default=[],
                         help="cuda:0, mps or cpu, may be repeated; none: jobs are queued and not rendered (default: "
                              "every GPU, else the best there is)")
    command.add_argument("--idle-exit", metavar="MIN", type=float, help="end after so many minutes without work")
    command.add_argument("--queue", metavar="FILE", type=Path, help="the jobs' database (default: FRESCO_QUEUE)")
    command.add_argument("--listen", metavar="ENDPOINT", help='for other machines too, such as "tcp://0.0.0.0:40001"; '
                         "needs --keys")
    command.add_argument("--keys", metavar="DIR", type=Path, help="folder of keys that fresco keys made")
    command.add_argument("--staging", metavar="DIR", type=Path, help="folder inside a root for the files that clients "
                         "send (default: .fresco-staged in the first root)")
    command.add_argument("--upload-limit", metavar="GB", type=_bytes, help="of all files that clients have sent; 0 "
                         "takes none (default: 200)")
    command.add_argument("--keep-free", metavar="GB", type=_bytes, help="of the disk that files of clients leave free "
                         "(default: 1)")
    command.add_argument("--json", action="store_true", help="one JSON object on stdout when it listens")
    command.set_defaults(run=_serve)
    keys = commands.add_parser("keys", help="let a client on another machine in", description=KEYS)
    keys.add_argument("folder", metavar="DIR", type=Path, help="the server's folder of keys; made if it is not there")
    keys.add_argument("name", metavar="NAME", help="of the client")
    keys.add_argument("--json", action="store_true", help="JSON on stdout")
    keys.set_defaults(run=_keys)
    stop = commands.add_parser("stop", help="stop the server; its queue goes on at the next start",
                               description="Stops the server after the running steps, or after six seconds.")
    stop.add_argument("--now", action="store_true", help="do not wait for the running steps")
    stop.add_argument("--json", action="store_true", help="JSON on stdout")
    stop.set_defaults(run=_stop)


def _bytes(text: str) -> int:
    """Gigabytes in a text."""
    try:
        size = float(text) * 1e9
    except ValueError:
        size = math.nan
    if not (math.isfinite(size) and size >= 0):
        raise argparse.ArgumentTypeError(f'found "{text}"; allowed: a number from 0 on, such as 500')
    return round(size)


def _serve(arguments: argparse.Namespace) -> int:
    from fresco_backend.server.gate import Gate
    from fresco_backend.server.server import options_of, serve

    def said(server: Server) -> None:
        if arguments.json:
            connection = server.connection
            found = {"event": "listening", "endpoint": connection.endpoint, "pid": connection.pid,
                     "connection": str(server.options.connection)}
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()

    if (arguments.listen is None) != (arguments.keys is None):
        raise UsageError("--listen and --keys belong together: other machines come in with a listed key only",
                         remedy="Make keys: fresco keys DIR NAME. Or leave both out, and take a tunnel of ssh.")
    gate = Gate(arguments.listen, arguments.keys) if arguments.listen else None
    idle = None if arguments.idle_exit is None else 60 * arguments.idle_exit
    named = tuple(device for device in arguments.device if device != "none")
    given: dict[str, Any] = {"devices": named} if arguments.device else {}
    for option in ("upload_limit", "keep_free"):
        if (value := getattr(arguments, option)) is not None:
            given[option] = value
    serve(options_of(roots=tuple(root.absolute() for root in arguments.root), queue=arguments.queue,
                     port=arguments.port, gate=gate, idle_exit=idle,
                     staging=arguments.staging and arguments.staging.absolute(), **given), said=said)
    return 0


def _keys(arguments: argparse.Namespace) -> int:
    from fresco_backend.server.gate import SERVER, make_client_key

    secret = make_client_key(arguments.folder, arguments.name)
    if arguments.json:
        sys.stdout.write(json.dumps({"client": str(secret), "server": str(secret.with_name(f"{SERVER}.key"))}) + "\n")
    else:
        sys.stderr.write(f"copy to the client's machine, into one folder: {secret} and "
                         f"{secret.with_name(f'{SERVER}.key')}; there set FRESCO_CLIENT_KEY to the first\n")
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    from fresco_backend.commands.job_commands import connected
    from fresco_protocol.messages import Stop

    with connected() as client:
        client.request(Stop(at_once=arguments.now))
    if arguments.json:
        sys.stdout.write(json.dumps({"event": "stopping"}) + "\n")
    else:
        sys.stderr.write("the server stops; its jobs go on at the next start\n")
    return 0
