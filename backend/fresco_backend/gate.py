# SPDX-License-Identifier: Apache-2.0
"""The way in for other machines: CurveZMQ, with a list of the keys that may come in. Nobody else gets a word through.

A folder holds the keys: `server.key_secret` and `server.key`, and in `clients/` the public keys of those who may come,
one file each. Whoever has come in still signs every message with the server's token.

Source: CurveZMQ (rfc.zeromq.org/spec/26), ZAP (rfc.zeromq.org/spec/27), as libzmq and pyzmq implement them.
"""
from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from fresco_protocol.errors import InputError, OutputDenied, ServerError, UsageError

DOMAIN = "fresco"  # the same on the socket and in the authenticator: "*" there does not match a named one here
SERVER, CLIENTS = "server", "clients"


class Gate:
    """What guards a socket that other machines reach; a context manager. endpoint: such as "tcp://0.0.0.0:40001".

    Makes the server's keys where there are none. Raises UsageError without a client that may come in.
    """

    def __init__(self, endpoint: str, folder: Path) -> None:
        self.endpoint = endpoint
        self._clients = folder / CLIENTS
        if not list(self._clients.glob("*.key")):
            raise UsageError("no client may come in from other machines", where=self._clients,
                             remedy=f"Make a key for each: fresco keys {folder} NAME")
        self._public, self._secret = _pair(folder, SERVER)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._authenticator = ThreadAuthenticator(self.context)

    def __enter__(self) -> Self:
        self._authenticator.start()
        self._authenticator.configure_curve(domain=DOMAIN, location=str(self._clients))
        return self

    def __exit__(self, *_: object) -> None:
        self._authenticator.stop()
        self.context.destroy(linger=0)

    def guard(self, socket: zmq.Socket[bytes]) -> None:
        """Lets a socket, before it is bound, speak with the listed keys only."""
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = self._public, self._secret
        socket.zap_domain = DOMAIN.encode()


def make_client_key(folder: Path, name: str) -> Path:
    """Lets one more client in: gives the file of its secret key, which goes to its machine with `server.key`."""
    if not name.isidentifier() or name == SERVER:
        raise UsageError(f'"{name}" is no name of a client', remedy="Take letters, digits and underscores.")
    _pair(folder, SERVER)
    _pair(folder, name)
    clients = folder / CLIENTS
    clients.mkdir(mode=0o700, exist_ok=True)
    (folder / f"{name}.key").replace(clients / f"{name}.key")
    return folder / f"{name}.key_secret"


def _pair(folder: Path, name: str) -> tuple[bytes, bytes]:
    """The public and secret key of a name, made where they are not there; the secret one for its owner only."""
    secret = folder / f"{name}.key_secret"
    try:
        if not secret.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            zmq.auth.create_certificates(folder, name)
            secret.chmod(0o600)
        if os.name == "posix" and secret.stat().st_mode & 0o077:
            raise InputError("others than its owner may read this secret key", where=secret,
                             remedy="Delete it, and make a new one: it may be known.")
    except OSError as error:
        raise OutputDenied(f"keys cannot be made: {error.strerror}", where=folder,
                           remedy="Name a folder of your own.") from error
    return read_keys(secret)


def read_keys(secret: Path) -> tuple[bytes, bytes]:
    """The public and secret key in a file. Raises InputError."""
    try:
        public, private = zmq.auth.load_certificate(secret)
    except (OSError, ValueError) as error:
        raise InputError(f"no key: {error}", where=secret, remedy="fresco keys FOLDER NAME makes one.") from error
    if private is None:
        raise InputError("the secret half of the key is not in this file", where=secret,
                         remedy="Name the file that ends in .key_secret.")
    return public, private


class CurveDealer:
    """A client's connection through the gate (a `client.Transport`), for the command line on another machine."""

    def __init__(self, endpoint: str, *, client: Path, server: Path) -> None:
        """client: file of the client's secret key. server: file of the server's public key."""
        self._endpoint = endpoint
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.curve_publickey, self._socket.curve_secretkey = read_keys(client)
        self._socket.curve_serverkey = zmq.auth.load_certificate(server)[0]
        self._socket.connect(endpoint)

    def send(self, parts: Sequence[bytes]) -> None:
        """Sends, now or later. Raises ServerError when too much waits already."""
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            raise ServerError(f"the server takes nothing more: {error}", where=self._endpoint) from None

    def receive(self) -> list[bytes] | None:
        """The next message if one has come."""
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def wait(self, seconds: float) -> None:
        """Returns when something may have come, or after this time."""
        self._socket.poll(max(0, round(1000 * seconds)))

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()
        self._context.term()
