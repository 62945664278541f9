# SPDX-License-Identifier: Apache-2.0
"""The server's folder of uploads: it deletes what is its own and nothing else, whatever it finds at its start."""
from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import serving

from fresco_backend.server import staging as staging_room
from fresco_backend.server.checksums import Checksums
from fresco_backend.server.staged_upload import Chunk
from fresco_backend.server.staging import Staging, check_staging
from fresco_protocol.errors import Busy, OutputDenied, UsageError
from fresco_protocol.files import File

DATA = b"hello"
SHA256 = hashlib.sha256(DATA).hexdigest()
PLATE = File(name="plate/p.1001.png", size=len(DATA), sha256=SHA256)


@pytest.fixture
def said() -> list[str]:
    """The server's log."""
    return []


@pytest.fixture
def opened(tmp_path: Path, said: list[str]) -> Iterator[Callable[[], Staging]]:
    """Opens the folder "uploads/q" as a server does at its start."""
    threads: list[Checksums] = []

    def start() -> Staging:
        threads.append(Checksums(said.append))
        return Staging(tmp_path / "uploads" / "q", keep_free=0, checksums=threads[-1], say=said.append)

    yield start
    for thread in threads:
        thread.close()


def chunk(data: bytes = DATA, offset: int = 0) -> Chunk:
    return Chunk(PLATE.name, offset, hashlib.sha256(data).hexdigest(), data)


def soon(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()


def test_what_is_not_its_own_is_left_alone(
        tmp_path: Path, opened: Callable[[], Staging], said: list[str]) -> None:
    place = tmp_path / "uploads" / "q"
    for name in ("show", ".old.gone", "0" * 23, "G" * 24):
        (place / name).mkdir(parents=True)
        (place / name / "plate.1001.exr").write_bytes(DATA)
    (place / "notes.txt").write_bytes(DATA)
    before = sorted(place.rglob("*"))
    opened().tend()
    time.sleep(0.1)
    assert sorted(place.rglob("*")) == before
    assert len(said) == 5


@pytest.mark.parametrize("manifest", ['{"schema": 2}', "{", "schema", "surrogate", "moved", "folder", "latin"])
def test_an_upload_that_cannot_be_read_costs_only_itself(
        opened: Callable[[], Staging], said: list[str], manifest: str) -> None:
    staging = opened()
    staging.begin("bad", (PLATE,))
    staging.begin("good", (PLATE,))
    place = staging.of("bad").folder
    whole = (place / "manifest.json").read_text()
    text = {"schema": whole.replace('"schema": 1', '"schema": 2'), "surrogate": whole.replace("p.1001", "\\ud800"),
            "moved": whole.replace('"bad"', '"good"')}.get(manifest, manifest)
    (place / "manifest.json").write_bytes(b"\xff" if manifest == "latin" else text.encode())
    if manifest == "folder":
        (place / "manifest.json").unlink()
        (place / "manifest.json").mkdir()
    again = opened()
    assert again.keys == ("good",)
    assert "is left alone" in said[-1]
    assert (place / "plate").is_dir()
    with pytest.raises(OutputDenied, match="could not be read"):
        again.begin("bad", (PLATE,))
    assert (place / "plate").is_dir()


def test_a_folder_in_use_is_none_for_uploads(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a root is no folder"):
        check_staging(tmp_path, (tmp_path,))
    check_staging(tmp_path / "new", (tmp_path,))
    (tmp_path / "new" / "0123456789abcdef").mkdir(parents=True)
    (tmp_path / "new" / ".snapshot").mkdir()
    check_staging(tmp_path / "new", (tmp_path,))
    (tmp_path / "new" / "sh010").mkdir()
    with pytest.raises(UsageError, match="something else in it: sh010"):
        check_staging(tmp_path / "new", (tmp_path,))
    (tmp_path / "file").touch()
    with pytest.raises(OutputDenied):
        check_staging(tmp_path / "file", (tmp_path,))


def test_a_server_does_not_start_on_a_folder_of_shows(tmp_path: Path) -> None:
    (tmp_path / "shows" / "sh010").mkdir(parents=True)
    (tmp_path / "shows" / "sh010" / "p.1001.exr").write_bytes(DATA)
    for folder in (tmp_path, tmp_path / "shows"):
        with pytest.raises(UsageError), serving(tmp_path, staging=folder):
            pass
    assert (tmp_path / "shows" / "sh010" / "p.1001.exr").read_bytes() == DATA


def test_what_is_discarded_does_not_come_back(opened: Callable[[], Staging]) -> None:
    staging = opened()
    staging.begin("key", (PLATE,))
    place = staging.of("key").folder
    staging._checksums.close()  # the server ends before it is deleted
    staging.discard("key")
    assert [path.suffix for path in place.parent.iterdir()] == [".gone"]
    again = opened()
    assert again.keys == ()
    assert soon(lambda: not list(place.parent.iterdir()))
    again.begin("key", (PLATE,))


def test_a_name_that_the_disk_refuses_leaves_nothing(
        opened: Callable[[], Staging], monkeypatch: pytest.MonkeyPatch) -> None:
    staging = opened()
    file = File(name="plate/p.1001.png", size=0, sha256=SHA256)
    for name in ("plate/" + "x" * 300, "plate/\ud800.png"):
        object.__setattr__(file, "name", name)
        with pytest.raises(OutputDenied):
            staging.begin("key", (file,))
        assert not list((staging.folder or Path()).iterdir())
    opened()


def test_a_disk_that_cannot_be_read_makes_no_file_wrong(
        opened: Callable[[], Staging], monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    def failing(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    staging = opened()
    staging.begin("key", (PLATE,))
    monkeypatch.setattr(os, "fsync", failing)
    staging.take("key", chunk())
    upload = staging.of("key")

    def tended() -> bool:
        staging.tend()
        return bool(upload.refused)

    assert soon(tended)
    assert (upload.held[PLATE.name], upload.wrong) == (len(DATA), set())
    assert upload.part(PLATE.name).read_bytes() == DATA
    monkeypatch.undo()
    with pytest.raises(OutputDenied, match="Input/output error"):
        staging.look_again("key")
    staging.look_again("key")

    def whole() -> bool:
        staging.tend()
        return upload.is_complete

    assert soon(whole)
    assert upload.path(PLATE.name).read_bytes() == DATA


def test_the_thread_outlives_what_nobody_has_thought_of(tmp_path: Path, said: list[str]) -> None:
    checksums = Checksums(said.append)
    (tmp_path / "x").write_bytes(DATA)
    checksums.ask(tmp_path / "a\0b")
    checksums.work(lambda: 1 // 0)
    checksums.ask(tmp_path / "x")
    assert soon(lambda: checksums.of(tmp_path / "x") == SHA256)
    assert len(said) == 2
    assert "ZeroDivisionError" in said[1]
    checksums.close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes there")
def test_the_thread_does_not_wait_for_a_pipe(tmp_path: Path, said: list[str]) -> None:
    checksums = Checksums(said.append)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "x").write_bytes(DATA)
    checksums.ask(tmp_path / "pipe")
    checksums.ask(tmp_path / "x")
    assert soon(lambda: checksums.of(tmp_path / "x") == SHA256)
    checksums.close()


def test_a_file_that_grows_is_no_idle_upload(opened: Callable[[], Staging]) -> None:
    staging = opened()
    staging.begin("key", (PLATE,))
    upload = staging.of("key")
    staging.take("key", chunk(b"he"))
    upload.touched = 1.0
    staging.take("key", chunk(b"ll", 2))
    assert staging.idle_since("key") > time.time() - 60
    for path in (upload.folder, *upload.folder.iterdir()):
        os.utime(path, (1, 1))
    assert opened().idle_since("key") > time.time() - 60, "nor after a restart"
    os.utime(upload.part(PLATE.name), (5, 5))
    assert opened().idle_since("key") == 5


def test_files_are_counted(opened: Callable[[], Staging], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging_room, "MOST_FILES", 3)
    staging = opened()
    many = tuple(File(name=f"plate/{number}", size=1, sha256=SHA256) for number in range(3))
    staging.begin("first", many[:2])
    with pytest.raises(Busy, match="2 files of other uploads"):
        staging.begin("second", many[:2])
    staging.begin("third", many[:1])
    staging.discard("first")
    staging.begin("second", many[:2])


def test_what_is_missing_is_known_at_any_time(opened: Callable[[], Staging]) -> None:
    staging = opened()
    staging.begin("key", (PLATE,))
    assert staging.of("key").missing == 5
    staging.take("key", chunk(b"he"))
    staging.take("key", chunk(b"ell", 1))
    assert staging.of("key").missing == opened().of("key").missing == 1
    assert json.loads((staging.of("key").folder / "manifest.json").read_text())["key"] == "key"
