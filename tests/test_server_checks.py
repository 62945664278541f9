# SPDX-License-Identifier: Apache-2.0
"""What `fresco doctor` finds of the server."""
from __future__ import annotations

from pathlib import Path

import pytest
from servers import serving

from fresco_backend.commands import server_checks
from fresco_backend.commands.finding import Concern
from fresco_protocol.errors import OutputDenied, ServerError, UsageError


@pytest.fixture(autouse=True)
def _places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FRESCO_CONNECTION", str(tmp_path / "state" / "connection.json"))
    monkeypatch.setenv("FRESCO_QUEUE", str(tmp_path / "state" / "queue.sqlite"))


def test_a_server_that_runs_is_seen(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        assert f"process {running.connection.pid}" in str(server_checks.server())
        Path(running.file).chmod(0o644)
        with pytest.raises(ServerError, match="others than its owner"):
            server_checks.server()
        Path(running.file).chmod(0o600)


def test_none_that_runs_is_no_fault_but_one_that_was_killed_is_said(tmp_path: Path) -> None:
    assert "none runs" in str(server_checks.server())
    with serving(tmp_path) as running:
        file = Path(running.file).read_text()
    (tmp_path / "state" / "connection.json").touch(mode=0o600)
    (tmp_path / "state" / "connection.json").write_text(file)
    found = server_checks.server()
    assert isinstance(found, Concern)
    assert "no longer listens" in found.text
    assert "fresco serve" in str(found.remedy)
    (tmp_path / "state" / "connection.json.lock").unlink()  # no server was ever here: the file is a copy
    copied = server_checks.server()
    assert isinstance(copied, Concern)
    assert "open the tunnel" in str(copied.remedy)


def test_a_queue_that_others_may_read_is_a_concern(tmp_path: Path) -> None:
    assert server_checks.queue() == str(tmp_path / "state" / "queue.sqlite")
    with serving(tmp_path):
        pass
    assert server_checks.queue() == str(tmp_path / "state" / "queue.sqlite")
    (tmp_path / "state" / "queue.sqlite").chmod(0o644)
    assert isinstance(server_checks.queue(), Concern)


def test_a_queue_that_cannot_be_written_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FRESCO_QUEUE", str(tmp_path / "file" / "queue.sqlite"))
    with pytest.raises(OutputDenied):
        server_checks.queue()


def test_roots_and_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRESCO_ROOTS", str(tmp_path))
    assert server_checks.roots() == str(tmp_path)
    monkeypatch.setenv("FRESCO_ROOTS", str(tmp_path / "none"))
    assert isinstance(server_checks.roots(), Concern)
    monkeypatch.setenv("FRESCO_PATH_MAPPING", str(tmp_path / "rules.json"))
    with pytest.raises(UsageError):
        server_checks.roots()
