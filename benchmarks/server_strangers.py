# SPDX-License-Identifier: Apache-2.0
"""Strangers at a server's door: `python benchmarks/server_strangers.py [--connections 10000]`.

A third of the connections says nothing, a third speaks HTTP, a third speaks ZeroMQ and sends messages that are signed
with another token, or were sent before. Meanwhile a good client is served. Ends with 1 if it is not, or if the log
grows.
"""
from __future__ import annotations

import argparse
import resource
import secrets
import socket
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "protocol"), str(ROOT / "backend"), str(ROOT / "tests")]

from processes import memory, processor  # noqa: E402
from servers import Process  # noqa: E402

from fresco_protocol.connection import Connection, host_and_port, read_connection  # noqa: E402
from fresco_protocol.messages import Hello, ListJobs, Status, fresh_key  # noqa: E402
from fresco_protocol.wire import encode  # noqa: E402
from fresco_protocol.zmtp import GREETING, READY, message  # noqa: E402


def stranger(number: int, connection: Connection, replayed: bytes) -> socket.socket:
    """A connection that stays open; every third one of a kind. replayed: a message that was sent before."""
    link = socket.create_connection(host_and_port(connection.endpoint))
    if number % 3 == 1:
        link.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    elif number % 3 == 2:
        forged = message(encode(Hello(software="x"), secrets.token_hex(32), id=fresh_key()))
        link.sendall(GREETING + READY)
        link.recv(200)  # its greeting: what comes before that, libzmq takes for no ZeroMQ
        link.sendall(forged + replayed)
    return link


def main(connections: int, folder: Path) -> int:
    """Open the connections, ask as a good client between them, and print what they cost."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    process = Process(folder=folder, words=("--device", "none"))
    process.start()
    try:
        process.connected().close()
        assert process.child is not None
        connection, server = read_connection(process.file), process.child.pid
        replayed = message(encode(ListJobs(), connection.token, id=fresh_key()))
        began, used, held = time.monotonic(), processor(server), memory(server)["VmRSS"]
        links, slowest = [], 0.0
        with process.client() as client:
            client.connect()
            for number in range(connections):
                links.append(stranger(number, connection, replayed))
                if number % 100 == 99:
                    begin = time.monotonic()
                    client.request(Status(), seconds=30)
                    slowest = max(slowest, time.monotonic() - begin)
            queued = client.request(Status(), seconds=30).queued
        lines = len(process.log.read_text(encoding="utf-8", errors="replace").splitlines())
        grown = memory(server)["VmRSS"] - held
        print(f"{connections} connections in {time.monotonic() - began:.0f} s: the server used "
              f"{processor(server) - used:.1f} CPU-s and {grown / 2**20:.0f} MiB; the slowest of "
              f"{connections // 100} good requests between took {1000 * slowest:.0f} ms; the log has {lines} lines")
        for link in links:
            link.close()
        return 0 if queued == 0 and lines < 20 and process.child.poll() is None else 1
    finally:
        process.end()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sys.exit(main(arguments.connections, Path(name)))
