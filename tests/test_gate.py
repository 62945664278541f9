# SPDX-License-Identifier: Apache-2.0
"""The way in for other machines: listed keys come in, nobody else, and the loopback stays as it is."""
from __future__ import annotations

import shutil
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from servers import Running, serving

from fresco_backend import cli
from fresco_backend.commands import server_checks
from fresco_backend.server.gate import CurveDealer, Gate, make_client_key
from fresco_protocol.client import Client
from fresco_protocol.connection import Connection
from fresco_protocol.errors import InputError, ProtocolError, ServerLost, ServerSilent, UsageError
from fresco_protocol.messages import ListJobs, Logs, Status


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    make_client_key(tmp_path / "keys", "artist")
    return tmp_path / "keys"


@pytest.fixture
def endpoint() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def running(tmp_path: Path, keys: Path, endpoint: str) -> Iterator[Running]:
    with serving(tmp_path, gate=Gate(endpoint, keys), heartbeat=0.2) as server:
        yield server


@pytest.fixture
def remote(running: Running, endpoint: str) -> Connection:
    return replace(running.connection, endpoint=endpoint)


def dealer(keys: Path, client: str = "artist") -> partial[CurveDealer]:
    return partial(CurveDealer, client=keys / f"{client}.key_secret", server=keys / "server.key")


def test_a_listed_key_comes_in_beside_plain_clients_on_the_loopback(
        running: Running, remote: Connection, keys: Path) -> None:
    with Client(remote, software="remote 1", dial=dealer(keys)) as far, running.client() as near:
        far.watch()
        job = running.submit(near).id
        assert [record.id for record in far.request(ListJobs()).records] == [job]
        assert far.request(Status()).queued == 1
        assert f"for other machines with a listed key at {remote.endpoint}" in near.request(Logs()).lines[0]


def test_another_key_does_not_come_in(running: Running, remote: Connection, keys: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    make_client_key(stranger, "artist")
    shutil.copy(keys / "server.key", stranger / "server.key")
    with Client(remote, software="x", dial=dealer(stranger)) as far, pytest.raises(ServerSilent):
        far.connect(seconds=1)


def test_the_wrong_server_is_not_spoken_to(running: Running, remote: Connection, keys: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_client_key(other, "artist")
    dial = partial(CurveDealer, client=keys / "artist.key_secret", server=other / "server.key")
    with Client(remote, software="x", dial=dial) as far, pytest.raises(ServerSilent):
        far.connect(seconds=1)


def test_a_plain_client_is_told_to_take_a_tunnel(running: Running, remote: Connection) -> None:
    with Client(remote, software="x") as far, pytest.raises((ProtocolError, ServerLost)) as caught:
        far.connect(seconds=3)
    assert "ssh" in str(caught.value.remedy)


def test_the_token_is_asked_for_behind_the_gate_too(running: Running, remote: Connection, keys: Path) -> None:
    wrong = replace(remote, token="0" * 64)
    with Client(wrong, software="x", dial=dealer(keys)) as far, pytest.raises(ServerSilent):
        far.connect(seconds=1)


def test_without_a_listed_client_there_is_no_gate(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no client may come in"):
        Gate("tcp://127.0.0.1:1", tmp_path)


def test_secret_keys_are_their_owners(keys: Path) -> None:
    for name in ("server", "artist"):
        assert stat.S_IMODE((keys / f"{name}.key_secret").stat().st_mode) == 0o600
    assert not (keys / "artist.key").exists(), "what lies in clients/ is the whole list"
    (keys / "server.key_secret").chmod(0o644)
    with pytest.raises(InputError, match="others than its owner"):
        Gate("tcp://127.0.0.1:1", keys)


def test_a_key_is_made_once_and_anew_when_it_was_taken_back(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["keys", str(tmp_path / "keys"), "artist"]
    secret = tmp_path / "keys" / "artist.key_secret"
    assert cli.main(words) == 0
    first = secret.read_bytes()
    assert cli.main(words) == UsageError.exit_code
    assert "may come in already" in capsys.readouterr().err
    assert secret.read_bytes() == first
    (tmp_path / "keys" / "clients" / "artist.key").unlink()
    assert cli.main(words) == 0
    assert secret.read_bytes() != first, "the one that was taken back does not come in again"
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == [
        "artist.key_secret", "clients", "server.key", "server.key_secret"]


def test_a_key_that_was_not_copied_is_named(
        remote: Connection, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    copied = tmp_path / "artist.key_secret"
    shutil.copy(keys / copied.name, copied)
    box = tmp_path / "box.json"
    box.touch(mode=0o600)
    box.write_text(remote.to_json())
    monkeypatch.setenv("FRESCO_CONNECTION", str(box))
    monkeypatch.setenv("FRESCO_CLIENT_KEY", str(copied))
    assert cli.main(["jobs"]) == InputError.exit_code
    said = capsys.readouterr().err
    assert str(tmp_path / "server.key") in said
    assert "Copy server.key" in said


@pytest.mark.parametrize("words", [["serve", "--listen", "tcp://0.0.0.0:1"], ["serve", "--keys", "keys"],
                                   ["keys", "keys", "../evil"], ["keys", "keys", "server"]])
def test_the_command_asks_for_both_halves(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2


def test_the_command_comes_in_with_the_key_of_the_settings(
        running: Running, remote: Connection, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    copied = tmp_path / "box.json"
    copied.touch(mode=0o600)
    copied.write_text(remote.to_json())
    monkeypatch.setenv("FRESCO_CONNECTION", str(copied))
    monkeypatch.setenv("FRESCO_CLIENT_KEY", str(keys / "artist.key_secret"))
    assert cli.main(["jobs"]) == 0
    assert capsys.readouterr().out == "no jobs\n"
    assert f"process {remote.pid}" in str(server_checks.server()), "the doctor comes in with it too"
