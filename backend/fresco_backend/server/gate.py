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
from tempfile import TemporaryDirectory
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
    """Lets one more client in: gives the file of its secret key, which goes to its machine with `server.key`.

    Raises UsageError for a name whose client may come in already; one whose key was taken back gets a new key.
    """
    if not name.isidentifier() or name == SERVER:
        raise UsageError(f'"{name}" is no name of a client', remedy="Take letters, digits and underscores.")
    secret, listed = folder / f"{name}.key_secret", folder / CLIENTS / f"{name}.key"
    if listed.exists():
        raise UsageError(f'a client "{name}" may come in already', where=listed,
                         remedy=f"Its secret key is {secret}, unless that was moved. For a new key delete this file "
                                "first: that takes the old one back.")
    _pair(folder, SERVER)
    try:
        secret.unlink(missing_ok=True)
        _pair(folder, name)
        listed.parent.mkdir(mode=0o700, exist_ok=True)
        secret.with_suffix(".key").replace(listed)
    except OSError as error:
        raise _unmade(folder, error) from error
    return secret


def _pair(folder: Path, name: str) -> tuple[bytes, bytes]:
    """The public and secret key of a name, made where they are not there; the secret one for its owner only."""
    secret = folder / f"{name}.key_secret"
    try:
        if not secret.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with TemporaryDirectory(dir=folder, prefix=".") as private:  # nobody else reads what is made in there
                for made in map(Path, zmq.auth.create_certificates(private, name)):  # the secret one is the last
                    made.chmod(0o600 if made.suffix == secret.suffix else 0o644)
                    made.replace(folder / made.name)
        if os.name == "posix" and secret.stat().st_mode & 0o077:
            raise InputError("others than its owner may read this secret key", where=secret,
                             remedy="Delete it, and make a new one: it may be known.")
    except OSError as error:
        raise _unmade(folder, error) from error
    return read_keys(secret)


def _unmade(folder: Path, error: OSError) -> OutputDenied:
    return OutputDenied(f"keys cannot be made: {error.strerror}", where=folder, remedy="Name a folder of your own.")


def read_keys(secret: Path) -> tuple[bytes, bytes]:
    """The public and secret key in a file. Raises InputError."""
    public, private = _certificate(secret, "fresco keys FOLDER NAME makes one.")
    if private is None:
        raise InputError("the secret half of the key is not in this file", where=secret,
                         remedy="Name the file that ends in .key_secret.")
    return public, private


def _certificate(path: Path, remedy: str) -> tuple[bytes, bytes | None]:
    try:
        return zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise InputError(f"no key: {error}", where=path, remedy=remedy) from error


class CurveDealer:
    """A client's connection through the gate (a `client.Transport`), for the command line on another machine."""

    def __init__(self, endpoint: str, *, client: Path, server: Path) -> None:
        """client: file of the client's secret key. server: file of the server's public key. Raises InputError."""
        public, secret = read_keys(client)
        server_key, _ = _certificate(server, "Copy server.key from the server's folder of keys to this place, beside "
                                             "the client's secret key.")
        self._endpoint = endpoint
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.curve_publickey, self._socket.curve_secretkey = public, secret
        self._socket.curve_serverkey = server_key
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
