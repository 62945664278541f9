# SPDX-License-Identifier: Apache-2.0
"""Mutated messages: `python benchmarks/wire_fuzz.py [--messages 1000000] [--over-socket 100000] [--atheris]`.

First against `wire.decode`, half of them well signed, so that the readers behind the signature are reached; then over
the socket of a server in a process of its own. Any exception but a ProtocolError, a server that dies, memory that
grows, or a good client that is not served afterwards ends it with 1.

--atheris: libFuzzer chooses the bytes instead, guided by what they reach in the readers of headers, bodies, bytes of a
peer and lines of a worker; it begins with one message of each kind. Atheris is no dependency: give it an environment of
its own (`pip install atheris pyzmq`). Its options follow, such as -max_total_time=300 or -runs=1000000.
"""
from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "protocol"), str(ROOT / "backend"), str(ROOT / "tests")]

import zmq  # noqa: E402

if "--atheris" in sys.argv:  # it must see the modules as they are loaded
    import atheris
    watched = atheris.instrument_imports(include=["fresco_protocol", "fresco_backend"])
else:
    watched = nullcontext()
with watched:
    from mutations import HARMLESS, TOKEN, mutated, mutated_bytes, signed
    from processes import memory
    from servers import Process
    from verbs import EXAMPLES

    from fresco_backend.worker import worker_words
    from fresco_backend.worker.worker_words import Halt
    from fresco_protocol import wire, zmtp
    from fresco_protocol.connection import read_connection
    from fresco_protocol.errors import FrescoError, ProtocolError
    from fresco_protocol.messages import Status
    from fresco_protocol.wire import decode
    from fresco_protocol.zmtp import GREETING, READY


def bad(number: int, choice: random.Random, token: str) -> list[bytes]:
    """A message that is wrong in some way; every second one has a good signature."""
    parts = signed(HARMLESS[number % len(HARMLESS)], token)
    if number % 2:
        return mutated(parts, choice)
    index = choice.choice([0, *range(3, len(parts))])
    parts[index] = mutated_bytes(parts[index], choice)
    return signed(parts, token)


def fuzz_wire(messages: int, seed: int) -> None:
    """Every message is read or refused in words."""
    choice, read, began = random.Random(seed), 0, time.process_time()
    peak = 0
    for number in range(messages):
        parts = bad(number, choice, TOKEN)
        try:
            decode(parts, TOKEN)
            read += 1
        except ProtocolError:
            pass
        if number == messages // 10:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    print(f"wire: {messages} messages, {read} of them still made sense, no exception but refusals; "
          f"{time.process_time() - began:.0f} CPU-s, peak memory grew by {grown} KiB after the first tenth", flush=True)


def fuzz_socket(messages: int, seed: int, folder: Path) -> None:
    """The server lives, does not grow, and serves the next good client."""
    choice, process = random.Random(seed + 1), Process(folder=folder, words=("--device", "none"))
    process.start()
    try:
        process.connected().close()
        assert process.child is not None
        connection = read_connection(process.file)
        before = memory(process.child.pid)["VmRSS"]
        began = time.monotonic()
        for first in range(0, messages, 1000):
            dealer: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
            dealer.setsockopt(zmq.LINGER, 2000)
            dealer.connect(connection.endpoint)
            with dealer:
                for number in range(first, min(first + 1000, messages)):
                    dealer.send_multipart(bad(number, choice, connection.token))
                    while dealer.poll(0):
                        dealer.recv_multipart()
            if first == messages // 10:
                before = memory(process.child.pid)["VmRSS"]
        with process.client() as client:
            status = client.request(Status(), seconds=60)
        assert process.child.poll() is None
        grown = memory(process.child.pid)["VmRSS"] - before
        lines = len(process.log.read_text(encoding="utf-8", errors="replace").splitlines())
        print(f"socket: {messages} messages in {time.monotonic() - began:.0f} s; the next client was served "
              f"({status.queued} jobs); memory {grown // 1024:+d} KiB after the first tenth; the log has {lines} lines")
    finally:
        process.end()


def fuzz_atheris(words: list[str], folder: Path) -> None:
    """libFuzzer looks for an exception that is no refusal. folder: for the bytes that it begins with."""
    for number, example in enumerate(EXAMPLES):
        header, _, _, body, *_ = signed(example)
        (folder / f"body-{number}").write_bytes(bytes([0, number]) + body)
        (folder / f"header-{number}").write_bytes(bytes([1, number]) + header)
    (folder / "peer").write_bytes(bytes([2, 9]) + GREETING + READY)
    (folder / "worker").write_bytes(bytes([3, 0]) + Halt().to_bytes())

    def one(data: bytes) -> None:
        target, which, rest = data[:1], data[1:2], data[2:]
        try:
            _TARGETS[target[0] % len(_TARGETS) if target else 0](which[0] if which else 0, rest)
        except (FrescoError, UnicodeDecodeError):  # the second one of a worker's line, which the server expects
            return

    atheris.Setup([sys.argv[0], *words, str(folder)], one)
    atheris.Fuzz()


def _part(index: int, which: int, data: bytes) -> None:
    parts = signed(EXAMPLES[which % len(EXAMPLES)])
    parts[index] = data
    wire.decode(signed(parts), TOKEN)


def _peer(cut: int, data: bytes) -> None:
    decoder = zmtp.Decoder()
    for piece in (data[:cut], data[cut:]):
        decoder.feed(piece)
        while decoder.take() is not None:
            pass


def _line(_which: int, data: bytes) -> None:
    line = worker_words.line_of(data)
    if isinstance(line, worker_words.Told):
        line.event()


_TARGETS: tuple[Callable[[int, bytes], None], ...] = (partial(_part, 3), partial(_part, 0), _peer, _line)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--over-socket", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--atheris", action="store_true", help="the rest of the words go to libFuzzer")
    arguments, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        if arguments.atheris:
            fuzz_atheris(rest, Path(name))
        fuzz_wire(arguments.messages, arguments.seed)
        fuzz_socket(arguments.over_socket, arguments.seed, Path(name))
