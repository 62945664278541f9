# SPDX-License-Identifier: Apache-2.0
"""A plate sent to a server that shares no disk, and its delivery fetched: whole, resumed, refused, cleaned away."""
from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from false_workers import with_worker
from servers import Running, ended, serving, shot_in, waited

from fresco_backend import cli
from fresco_backend.commands import transfer_commands
from fresco_backend.commands.staged_shot import staged
from fresco_backend.files.frame_pattern import record_path
from fresco_backend.server import staging, transfers
from fresco_backend.server.acceptance import Acceptance
from fresco_backend.server.staged_upload import Chunk, StagedUpload
from fresco_backend.server.staging import Staging
from fresco_protocol import transfer
from fresco_protocol.client import Client
from fresco_protocol.connection import Connection
from fresco_protocol.errors import (
    Busy,
    ChecksumWrong,
    DiskFull,
    InputError,
    JobRefused,
    MessageMalformed,
    OutputDenied,
    OutputPattern,
    PartialDelivery,
    PathRefused,
    PlateMissing,
    ServerError,
    ServerLost,
    ServerMissing,
    ServerSilent,
    ShotError,
    UsageError,
)
from fresco_protocol.files import LARGEST_CHUNK, STAGED, File, is_file_name
from fresco_protocol.job import Job, JobState
from fresco_protocol.messages import (
    Cancel,
    ChunkGiven,
    DeliveryListed,
    Discard,
    GetChunk,
    ListDelivery,
    ListJobs,
    PutChunk,
    Retry,
    ShowJob,
    Submit,
    Upload,
    fresh_key,
)
from fresco_protocol.shot import Delivery, Look, Matte, Missing, Plate, Shot, parse_frames
from fresco_protocol.transfer import download, files_of, upload
from fresco_protocol.wire import encode
from fresco_protocol.zmtp import Dealer

SIZES = (3 * LARGEST_CHUNK + 17, 0, LARGEST_CHUNK, 40_000)
COPIES = "import shutil; there, here = (os.path.dirname(noun.sequence) for noun in (shot.delivery, shot.plate)); " \
         "[shutil.copy(os.path.join(here, name), os.path.join(there, name.replace('p.', 'look.'))) " \
         "for name in os.listdir(here)]"  # a worker that delivers the plate


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    """A folder with files p.1001.exr and so on, whose bytes are random: the server looks into none."""
    folder, choice = tmp_path / "here", random.Random(5)
    folder.mkdir()
    for number, size in enumerate(SIZES, 1001):
        (folder / f"p.{number}.exr").write_bytes(choice.randbytes(size))
    return folder


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """The root of the server."""
    (tmp_path / "box").mkdir()
    return tmp_path / "box"


def shot_of(plate: Path) -> Shot:
    return Shot(plate=Plate(sequence=str(plate / "p.####.exr")), look=Look(prompt="ink"),
                delivery=Delivery(sequence=str(plate.parent / "out" / "look.####.exr")), name="sh010")


def sent(client: Client, plate: Path, key: str = "key", **options: Any) -> Job:
    shot, sources = staged(shot_of(plate))
    return upload(client, shot, sources, client_key=key, **options)


def begun(client: Client, plate: Path, key: str = "key") -> tuple[Job, tuple[File, ...]]:
    """A job that is submitted, and waits for its files."""
    shot, sources = staged(shot_of(plate))
    files = files_of(sources)
    return client.request(Submit(shot=shot, client_key=key, files=files)).record, files


def chunk(job: str, file: File, data: bytes, offset: int = 0, sha256: str | None = None) -> PutChunk:
    digest = sha256 or hashlib.sha256(data).hexdigest()
    return PutChunk(job=job, name=file.name, offset=offset, sha256=digest, data=data)


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_ino


def staged_files(box: Path) -> list[str]:
    """All that lies in the server's folder."""
    place = box / ".fresco-staged"
    return sorted("/".join(path.relative_to(place).parts[2:]) for path in place.rglob("*") if path.is_file())


def own_place(box: Path) -> Path:
    """The folder of the one queue that has been served there."""
    place, = (box / ".fresco-staged").iterdir()
    return place


def waited_for(true: Callable[[], bool], seconds: float = 5) -> bool:
    """Whether it comes true in time."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


def test_a_plate_goes_out_and_its_delivery_comes_back(
        box: Path, plate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[transfer.Moved] = []
    with with_worker(box, monkeypatch, COPIES) as running, running.client() as client:
        record = sent(client, plate, told=moves.append)
        assert record.output.startswith(str(box.resolve() / ".fresco-staged"))
        assert ended(client, record.id).state is JobState.DELIVERED
        assert sent(client, plate).id == record.id, "sent again, it is the same job"
        found, paths = download(client, record.id, str(tmp_path / "back"), told=moves.append)
        assert (found.state, len(paths)) == (JobState.DELIVERED, len(SIZES))
        assert contents(tmp_path / "back") == contents(plate)
        monkeypatch.setattr(transfer, "_grow", None)  # nothing is fetched twice
        assert download(client, record.id, str(tmp_path / "back"))[1] == paths
        client.request(Discard(job=record.id))
        with pytest.raises(JobRefused, match="no files on the server"):
            client.request(PutChunk(job=record.id, name="plate/p.1001.exr", offset=0, sha256="0" * 64, data=b"x"))
    assert staged_files(box) == []
    total = sum(SIZES)
    assert {(moved.what, moved.total) for moved in moves} >= {
        (what, total) for what in ("reading", "sending", "fetching")}
    assert [moved.done for moved in moves if moved.what == "fetching"][-1] == total


def test_the_commands_do_the_same(box: Path, plate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "shot.json"
    document.write_text(shot_of(plate).to_json())
    with with_worker(box, monkeypatch, COPIES) as running:
        monkeypatch.setenv("FRESCO_CONNECTION", running.file)
        assert cli.main(["submit", str(document), "--upload"]) == 0
        job = capsys.readouterr().out.strip()
        assert cli.main(["submit", str(document), "--upload", "--watch", "--json"]) == 0
        said = capsys.readouterr()
        assert json.loads(said.out.splitlines()[-1])["record"]["id"] == job
        assert f"fresco download {job} -o DIR" in said.err, "the path that was told is one of the server's"
        assert cli.main(["download", job, "-o", str(tmp_path / "back")]) == 0
        assert "4 files" in capsys.readouterr().err
        assert contents(tmp_path / "back") == contents(plate)
        assert cli.main(["watch", job]) == 0
        assert "fresco download" not in capsys.readouterr().err, "nothing is left there to fetch"
    assert staged_files(box) == []


def test_of_a_job_that_goes_on_what_is_there_is_fetched(
        box: Path, plate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    with serving(box) as running, running.client() as client:
        monkeypatch.setenv("FRESCO_CONNECTION", running.file)
        record = sent(client, plate)
        (Path(record.output).parent / "look.1001.exr").write_bytes(b"a frame")
        (Path(record.output).parent / ".look.1002.exr.1.part").write_bytes(b"half of one")
        assert cli.main(["download", record.id, "-o", str(tmp_path / "back")]) == Busy.exit_code
        assert contents(tmp_path / "back") == [b"a frame"]
        assert "Run the same command again" in capsys.readouterr().err


def test_what_a_job_left_that_failed_is_fetched_and_not_taken_for_all(
        box: Path, plate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    fails = "say(Broken(problem=Problem(code='device-memory', what='no room', exit_code=12))); continue"
    with with_worker(box, monkeypatch, fails) as running, running.client() as client:
        monkeypatch.setenv("FRESCO_CONNECTION", running.file)
        record = ended(client, sent(client, plate).id)
        assert record.state is JobState.FAILED
        assert cli.main(["download", record.id, "-o", str(tmp_path / "back")]) == 12, "nothing is there: why, is said"
        (Path(record.output).parent / "look.1001.exr").write_bytes(b"a frame")
        assert cli.main(["download", record.id, "-o", str(tmp_path / "back")]) == PartialDelivery.exit_code
        assert contents(tmp_path / "back") == [b"a frame"]
        assert f"fresco retry {record.id}" in capsys.readouterr().err
        assert staged_files(box), "for the retry"


def test_the_delivery_of_a_job_without_upload_can_be_fetched(box: Path, tmp_path: Path) -> None:
    with serving(box) as running, running.client() as client:
        job = running.submit(client).id
        for name in ("look.1001.exr", "look.-002.exr", "look.fresco.json", "look.exr.fresco.json", "lookout.1001.exr",
                     "look.1001.png", "plate.1001.exr"):
            (box / name).write_bytes(name.encode())
        (box / "look.1003.exr").symlink_to("/etc/hostname")
        os.mkfifo(box / "look.1004.exr")
        with pytest.raises(InputError, match="no regular file"):
            client.request(GetChunk(job=job, name="look.1004.exr", offset=0), seconds=5)
        with pytest.raises(PathRefused, match="outside of the server's roots"):
            client.request(GetChunk(job=job, name="look.1003.exr", offset=0))
        for name in ("plate.1001.exr", "lookout.1001.exr", "state/queue.sqlite"):
            with pytest.raises(PathRefused, match="no such file"):
                client.request(GetChunk(job=job, name=name, offset=0))
        _, paths = download(client, job, str(tmp_path / "back"))
        assert [Path(path).name for path in paths] == ["look.-002.exr", "look.1001.exr", "look.exr.fresco.json"]


def test_a_fetch_replaces_what_was_delivered_and_nothing_else(
        box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import OpenImageIO as oiio  # noqa: N813, the name in its own manual

    def picture(path: Path, job: str = "") -> bytes:
        spec = oiio.ImageSpec(4, 4, 3, oiio.HALF)
        if job:
            spec.attribute("fresco:job_hash", job)
        image = oiio.ImageOutput.create(str(path))
        assert image is not None and image.open(str(path), spec)
        assert image.write_image(np.zeros((4, 4, 3), np.float16)) and image.close()
        return path.read_bytes()

    here = tmp_path / "here"
    here.mkdir()
    plate, earlier, movie = here / "look.1001.exr", here / "look.1002.exr", here / "look.mov"
    with serving(box) as running, running.client() as client:
        monkeypatch.setenv("FRESCO_CONNECTION", running.file)
        job = running.submit(client).id
        fetch = ["download", job, "-o", str(here)]
        wanted = picture(box / "look.1002.exr", "2222")
        picture(earlier, "1111")
        assert cli.main(fetch) == Busy.exit_code
        assert earlier.read_bytes() == wanted
        before = picture(plate)
        picture(box / plate.name, "2222")
        assert cli.main(fetch) == OutputDenied.exit_code
        assert plate.read_bytes() == before
        assert str(plate) in capsys.readouterr().err
        shot = replace(shot_in(box), delivery=Delivery(sequence=str(box / movie.name)))
        (box / movie.name).write_bytes(b"a movie")
        fetch[1] = client.request(Submit(shot=shot, client_key="movie")).record.id
        movie.write_bytes(b"the clip")
        assert cli.main(fetch) == OutputDenied.exit_code
        digest = hashlib.sha256(b"the clip").hexdigest()
        record_path(movie).write_text(json.dumps({"job": "1111", "movie": digest}))
        assert cli.main(fetch) == Busy.exit_code
        assert movie.read_bytes() == b"a movie"


@pytest.mark.parametrize("name", ["id_rsa", "notes.txt", "backup.1.sqlite", "look.exr.pem"])
def test_what_no_render_writes_is_not_given_out_as_a_delivery(
        box: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (box / name).write_bytes(b"secret")
    with serving(box) as running, running.client() as client:
        shot = replace(shot_in(box), delivery=Delivery(sequence=str(box / name)))
        with pytest.raises(OutputPattern):
            client.request(Submit(shot=shot, client_key="key"))
        monkeypatch.setattr(Acceptance, "check", lambda *_, **__: None)  # as of a queue that an earlier version wrote
        job = client.request(Submit(shot=shot, client_key="key")).record.id
        assert client.request(ListDelivery(job=job)).files == ()
        with pytest.raises(PathRefused, match="no such file"):
            client.request(GetChunk(job=job, name=name, offset=0))


def test_a_server_that_is_gone_is_told_with_what_fits_it(
        plate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    document, file = tmp_path / "shot.json", tmp_path / "connection.json"
    document.write_text(shot_of(plate).to_json())
    monkeypatch.setenv("FRESCO_CONNECTION", str(file))
    gone = Connection(endpoint="tcp://127.0.0.1:1", token=64 * "0", pid=1, version="1")
    commands = (["submit", str(document), "--upload"], ["download", "0123456789ab", "-o", str(tmp_path / "back")])
    monkeypatch.setattr(transfer_commands, "download", partial(download, patience=0.1))
    for words in commands:
        file.write_text(gone.to_json())  # as copied from the box
        file.chmod(0o644)
        assert cli.main(words) == ServerError.exit_code
        assert f"chmod 600 {file}" in capsys.readouterr().err
        file.chmod(0o600)
        assert cli.main(words) == ServerMissing.exit_code
        said = capsys.readouterr().err
        assert "open the tunnel to it again" in said and "the same command goes on" in said
        assert "fresco serve" not in said, "it would be another server"
        file.unlink()
        assert cli.main(words) == ServerMissing.exit_code
        said = capsys.readouterr().err
        assert '"fresco serve"' in said and "the same command goes on" in said


def test_a_shot_whose_job_is_over_is_rendered_by_another(
        box: Path, plate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "shot.json"
    document.write_text(shot_of(plate).to_json())

    def submitted(*words: str) -> str:
        assert cli.main(["submit", str(document), "--upload", *words]) == 0
        return capsys.readouterr().out.strip()

    with with_worker(box, monkeypatch, COPIES) as running, running.client() as client:
        monkeypatch.setenv("FRESCO_CONNECTION", running.file)
        first = submitted()
        assert ended(client, first).state is JobState.DELIVERED
        client.request(Discard(job=first))
        assert cli.main(["download", first, "-o", str(tmp_path / "back")]) == JobRefused.exit_code
        assert "nothing to fetch" in capsys.readouterr().err
        second = submitted()
        assert second not in (first, "")
        assert ended(client, second).state is JobState.DELIVERED
        assert submitted() == second, "its delivery is still there"
        client.request(Discard(job=second))
        assert submitted() not in (first, second)


def test_a_shot_whose_job_was_cancelled_is_rendered(
        box: Path, plate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "shot.json"
    document.write_text(shot_of(plate).to_json())
    submit = ["submit", str(document), "--upload"]
    with serving(box) as running, running.client() as client:
        monkeypatch.setenv("FRESCO_CONNECTION", running.file)
        assert cli.main(submit) == 0
        job = capsys.readouterr().out.strip()
        client.request(Cancel(job=job))
        assert cli.main(submit) == 0
        assert capsys.readouterr().out.strip() == job, "its files are there"
        assert client.request(ShowJob(job=job)).record.state is JobState.QUEUED
        client.request(Cancel(job=job))
        client.request(Discard(job=job))
        assert cli.main(submit) == 0
        other = capsys.readouterr().out.strip()
        assert client.request(ShowJob(job=other)).record.state is JobState.QUEUED
        assert other != job
        assert cli.main([*submit, "--client-key", "mine"]) == 0
        client.request(Cancel(job=capsys.readouterr().out.strip()))
        assert cli.main([*submit, "--client-key", "mine"]) == JobRefused.exit_code
        assert "the job of this key is cancelled" in capsys.readouterr().err


def test_a_file_without_checksum_does_not_keep_its_client_for_ever(box: Path, tmp_path: Path) -> None:
    with serving(box) as running, running.client() as client:
        job = running.submit(client).id
        for name in ("look.1001.exr", "look.1002.exr"):
            (box / name).write_bytes(b"a frame")
        ask = running.server.transfers.checksums.ask

        def only_first(path: Path, *, sync: bool = False) -> None:
            if path.name == "look.1001.exr":
                ask(path, sync=sync)

        running.server.transfers.checksums.ask = only_first  # type: ignore[method-assign]
        with pytest.raises(ServerSilent, match=r"no checksum of look\.1002\.exr, the first of 1"):
            download(client, job, str(tmp_path / "back"), patience=0.5)
        assert contents(tmp_path / "back") == [b"a frame"], "the other one is here"


@pytest.mark.parametrize("name", ["shot@home.####.exr", "a#1.####.exr", "look.$F4.exr", "look.mov"])
def test_the_names_of_a_delivery_are_those_that_it_writes(box: Path, tmp_path: Path, name: str) -> None:
    from fresco_backend.files.sequences import FramePattern

    written = {FramePattern.parse(name).path(1001), record_path(name)}
    with serving(box) as running, running.client() as client:
        shot = replace(shot_in(box), delivery=Delivery(sequence=str(box / name)))
        job = client.request(Submit(shot=shot, client_key="key")).record.id
        for path in written:
            (box / path).write_bytes(b"x")
        (box / "other.1001.exr").write_bytes(b"x")
        _, paths = download(client, job, str(tmp_path / "back"))
        assert {Path(Path(path).name) for path in paths} == written


# Going on.

class Breaking(Dealer):
    """A connection that breaks at the fifth chunk, once."""

    chunks = 0

    def send(self, parts: Sequence[bytes]) -> None:
        if b"put-chunk" in parts[0]:
            Breaking.chunks += 1
            if Breaking.chunks == 5:
                self._socket.shutdown(2)
                raise ServerLost("the connection broke", where=self.endpoint)
        super().send(parts)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Chunk]:
    """The chunks that servers take."""
    found: list[Chunk] = []
    take = Staging.take

    def noted(self: Staging, key: str, given: Chunk) -> int:
        held = take(self, key, given)
        found.append(given)
        return held

    monkeypatch.setattr(Staging, "take", noted)
    return found


def places(chunks: Sequence[Chunk]) -> list[tuple[str, int]]:
    return [(given.name, given.offset) for given in chunks]


def test_a_broken_connection_costs_no_chunk_that_had_arrived(
        box: Path, plate: Path, taken: list[Chunk], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Breaking, "chunks", 0)
    with serving(box) as running, running.client(dial=Breaking) as client:
        record = sent(client, plate)
        assert record.state is JobState.QUEUED
        assert Breaking.chunks > 5
        assert len(places(taken)) == len(set(places(taken))) == 6
        assert contents(Path(record.output).parents[1] / "plate") == contents(plate)


def test_a_server_that_starts_anew_has_what_had_arrived(box: Path, plate: Path, taken: list[Chunk]) -> None:
    def stop(moved: transfer.Moved) -> None:
        if moved.what == "sending" and moved.done >= 3 * LARGEST_CHUNK:
            raise InterruptedError

    with serving(box) as running, running.client() as client, pytest.raises(InterruptedError):
        sent(client, plate, told=stop)
    before = places(taken)
    with serving(box) as running, running.client() as client:
        job = client.request(ListJobs()).records[0]
        assert job.state is JobState.SUBMITTED
        held = client.request(Upload(job=job.id)).held
        assert sum(held) == sum(len(given.data) for given in taken)
        assert sent(client, plate).state is JobState.QUEUED
        assert contents(Path(job.output).parents[1] / "plate") == contents(plate)
    assert not set(before) & set(places(taken)[len(before):])
    with serving(box) as running, running.client() as client:
        assert client.request(ShowJob(job=job.id)).record.state is JobState.QUEUED


def test_a_server_that_ends_before_it_has_compared_does_so_at_its_next_start(box: Path, plate: Path) -> None:
    with serving(box) as running, running.client() as client:
        running.server.transfers.checksums.ask = lambda *_, **__: None  # type: ignore[method-assign]
        job, files = begun(client, plate)
        for file in files:
            data = (plate / Path(file.name).name).read_bytes()
            for offset in range(0, len(data), LARGEST_CHUNK):
                client.request(chunk(job.id, file, data[offset:offset + LARGEST_CHUNK], offset))
        assert client.request(Upload(job=job.id)).whole == 0
    with serving(box) as running, running.client() as client:
        assert waited(client, job.id, lambda record: record.state is JobState.QUEUED, 10)


def test_what_the_servers_disk_lost_is_sent_again(box: Path, plate: Path) -> None:
    with serving(box) as running, running.client() as client:
        job, files = begun(client, plate)
        client.request(chunk(job.id, files[0], (plate / "p.1001.exr").read_bytes()[:LARGEST_CHUNK]))
        part = own_place(box) / Path(job.output).parents[1].name / "plate" / ".p.1001.exr.part"
        with part.open("r+b") as file:
            file.write(bytes(4096))  # as a power cut leaves what was not on the disk yet
        assert sent(client, plate).state is JobState.QUEUED
        assert contents(part.parent) == contents(plate)


def test_a_server_that_damages_what_it_gets_is_not_sent_it_for_ever(
        box: Path, plate: Path, taken: list[Chunk], monkeypatch: pytest.MonkeyPatch) -> None:
    append = StagedUpload.append
    monkeypatch.setattr(StagedUpload, "append", lambda self, file, data: append(self, file, bytes(len(data))))
    with serving(box) as running, running.client() as client:
        with pytest.raises(ChecksumWrong, match="again and again"):
            sent(client, plate)
        times = Counter(given.name for given in taken if given.offset == 0)
        assert max(times.values()) == transfer.MOST_WRONG


def test_a_fetch_that_was_stopped_goes_on(box: Path, plate: Path, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    with with_worker(box, monkeypatch, COPIES) as running, running.client() as client:
        job = sent(client, plate).id
        ended(client, job)
        (tmp_path / "back").mkdir()
        whole = (plate / "p.1001.exr").read_bytes()
        (tmp_path / "back" / ".look.1001.exr.part").write_bytes(whole[:LARGEST_CHUNK + 3])
        (tmp_path / "back" / ".look.1003.exr.part").write_bytes(b"something else")
        asked: list[int] = []
        get = transfers.Transfers.get

        def noted(self: transfers.Transfers, request: GetChunk) -> ChunkGiven:
            if request.name == "look.1001.exr":
                asked.append(request.offset)
            return get(self, request)

        monkeypatch.setattr(transfers.Transfers, "get", noted)
        download(client, job, str(tmp_path / "back"))
        assert contents(tmp_path / "back") == contents(plate), "what was wrong was fetched anew"
        assert asked == [count * LARGEST_CHUNK + 3 for count in (1, 2, 3)]


def test_two_fetches_into_one_folder_do_not_spoil_each_other(box: Path, tmp_path: Path) -> None:
    whole = random.Random(7).randbytes(9 * LARGEST_CHUNK)

    def other(moved: transfer.Moved) -> None:  # comes when the first one is half through
        if moved.what == "fetching" and 0 < moved.done < moved.total:
            with running.client() as second:
                download(second, job, str(tmp_path / "back"))

    with serving(box) as running, running.client() as client:
        job = running.submit(client).id
        (box / "look.1001.exr").write_bytes(whole)
        with pytest.raises(Busy, match="another program fetches"):
            download(client, job, str(tmp_path / "back"), told=other)
    assert contents(tmp_path / "back") == [whole], "the file that had its name is the one that was fetched"


def test_a_file_that_was_fetched_is_on_the_disk_before_the_servers_goes(
        box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: set[tuple[int, int]] = set()
    with serving(box) as running, running.client() as client:
        job = running.submit(client).id
        for number in (1001, 1002):
            (box / f"look.{number}.exr").write_bytes(b"a frame")
        monkeypatch.setattr(os, "fsync", lambda descriptor: kept.add(identity(os.fstat(descriptor))))
        _, paths = download(client, job, str(tmp_path / "back"))
    assert len(paths) == 2
    assert {identity(Path(path).stat()) for path in paths} <= kept


def test_a_transfer_that_is_interrupted_says_what_goes_on(
        box: Path, plate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    (document := tmp_path / "shot.json").write_text(shot_of(plate).to_json())
    with serving(box) as running, running.client() as client:
        monkeypatch.setenv("FRESCO_CONNECTION", running.file)
        job = running.submit(client).id
        monkeypatch.setattr(transfer_commands, "upload", stopped)
        monkeypatch.setattr(transfer_commands, "download", stopped)
        for words in (["submit", str(document), "--upload"], ["download", job, "-o", str(tmp_path)]):
            assert cli.main(words) == 130
            assert "what has arrived is kept" in capsys.readouterr().err


# Refusals.

def test_checksums_are_compared(box: Path, plate: Path) -> None:
    with serving(box) as running, running.client() as client:
        shot, sources = staged(shot_of(plate))
        files = tuple(replace(file, sha256="0" * 64) if file.name == "plate/p.1004.exr" else file
                      for file in files_of(sources))
        with pytest.raises(ChecksumWrong, match="has changed since") as caught:
            upload(client, shot, sources, client_key="key", files=files)
        assert caught.value.where == str(plate / "p.1004.exr")
        job = client.request(ListJobs()).records[0]
        assert job.state is JobState.SUBMITTED
        assert "plate/p.1004.exr" not in staged_files(box)
        there = client.request(Upload(job=job.id))
        assert (there.held[3], there.wrong) == (0, ("plate/p.1004.exr",))
        with pytest.raises(ChecksumWrong, match="a chunk changed"):
            client.request(chunk(job.id, files[3], b"some bytes", sha256="0" * 64))
        assert client.request(Upload(job=job.id)).held[3] == 0


def test_chunks_follow_each_other(box: Path, plate: Path) -> None:
    with serving(box) as running, running.client() as client:
        job, files = begun(client, plate)
        data = (plate / "p.1001.exr").read_bytes()
        assert client.request(chunk(job.id, files[0], data[:100])).held == 100
        assert client.request(chunk(job.id, files[0], data[:100])).held == 100
        assert client.request(chunk(job.id, files[0], data[50:150], 50)).held == 150
        with pytest.raises(UsageError, match="do not follow"):
            client.request(chunk(job.id, files[0], b"x", 151))
        with pytest.raises(UsageError, match="do not follow"):
            client.request(chunk(job.id, files[3], bytes(40_001)))
        with pytest.raises(UsageError, match="without this file"):
            client.request(chunk(job.id, replace(files[0], name="plate/other"), b"x"))


TRICKS = (
    "..", "../p", "plate/../../p", "/etc/passwd", "plate//p", "plate/", "/p", "", ".", ".hidden", "plate/.p", "a/b/c",
    "plate\\p", "C:p", "plate/p:stream", "plate/nul", "plate/COM1.exr", "aux/p", "plate/p\0", "plate/p\n", "plate/p.",
    "plate/p ", "x" * 256, "p/" + "x" * 241, "plate/" + "水" * 100, "p/\ud800.png")


@pytest.mark.parametrize("name", TRICKS)
def test_names_that_lead_elsewhere_are_none(name: str) -> None:
    assert not is_file_name(name)
    with pytest.raises(ShotError):
        File(name=name, size=1, sha256="0" * 64)


@pytest.mark.parametrize("name", ["plate/p.1001.exr", "look.-001.exr", "plate/Gemälde 水.exr", "plate/com.1.exr", "a",
                                  "p/" + "x" * 240])
def test_good_names_are_some(name: str) -> None:
    assert is_file_name(name)


def test_a_server_does_not_trust_its_clients_names(box: Path, plate: Path) -> None:
    with serving(box) as running, running.client() as client:
        job, files = begun(client, plate)
        bad = chunk(job.id, files[0], b"x")
        object.__setattr__(bad, "name", "../../../../x")
        with pytest.raises(MessageMalformed, match="found"):
            client.request(bad)
        shot, _ = staged(shot_of(plate))
        for path in (f"{STAGED}../../../../etc/p.####.exr", f"{STAGED}plate/../../p.####.exr", "/etc/p.####.exr"):
            with pytest.raises(PathRefused):
                client.request(Submit(shot=replace(shot, plate=Plate(sequence=path)), client_key=fresh_key(),
                                      files=files))
        with pytest.raises(PathRefused, match="no name of a file that is sent"):
            client.request(Submit(shot=replace(shot, delivery=Delivery(
                sequence=f"{STAGED}delivery/../../../../look.####.exr")), client_key=fresh_key(), files=files))
        for path in (f"{STAGED}plate/look.####.exr", str(box / "look.####.exr")):
            with pytest.raises(UsageError, match="delivered beside them"):
                client.request(Submit(shot=replace(shot, delivery=Delivery(sequence=path)), client_key=fresh_key(),
                                      files=files))
        for name in ("delivery/x", "Delivery/x", "x"):
            with pytest.raises(UsageError, match="needs a folder"):
                client.request(Submit(shot=shot, client_key=fresh_key(), files=(replace(files[0], name=name),)))
        with pytest.raises(UsageError, match="two files of one name"):
            client.request(Submit(shot=shot, client_key=fresh_key(),
                                  files=(files[0], replace(files[1], name="plate/P.1001.EXR"))))
        with pytest.raises(PathRefused, match="no absolute path"):
            client.request(Submit(shot=shot, client_key=fresh_key()))
        with pytest.raises(UsageError, match="belongs to other files"):
            client.request(Submit(shot=shot, client_key="key", files=files[:1]))
        assert len(list(own_place(box).iterdir())) == 1, "what was refused left nothing"
    for place in (box / ".fresco-staged", own_place(box)):
        assert place.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of a file's size there")
def test_on_a_full_disk_the_client_is_told_and_nothing_is_half_written(box: Path, plate: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with serving(box) as running, running.client() as client:
        job, files = begun(client, plate)
        data = (plate / "p.1001.exr").read_bytes()
        client.request(chunk(job.id, files[0], data[:LARGEST_CHUNK]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_CHUNK + 1000, hard))
        try:
            with pytest.raises(DiskFull, match="disk of the server is full"):
                sent(client, plate)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        part = Path(job.output).parents[1] / "plate" / ".p.1001.exr.part"
        assert part.read_bytes() == data[:LARGEST_CHUNK]
        assert client.request(Upload(job=job.id)).held[0] == LARGEST_CHUNK
        assert sent(client, plate).state is JobState.QUEUED
        assert contents(Path(job.output).parents[1] / "plate") == contents(plate)


def test_what_has_no_room_is_refused_before_it_comes(box: Path, plate: Path) -> None:
    with serving(box, upload_limit=sum(SIZES) + 5) as running, running.client() as client:
        job, files = begun(client, plate)
        with pytest.raises(Busy, match="of other uploads"):
            begun(client, plate, "another")
        client.request(Cancel(job=job.id))
        running.server.transfers._cleaned = 0.0
        deadline = time.monotonic() + 5
        while running.server.transfers.staging.keys:
            assert time.monotonic() < deadline, "a cancelled upload is cleaned away"
            time.sleep(0.05)
        with pytest.raises(UsageError, match="this server takes"):
            client.request(Submit(shot=staged(shot_of(plate))[0], client_key="k",
                                  files=(replace(files[0], size=2**50),)))
        assert client.request(ListJobs(states=(JobState.SUBMITTED,))).total == 0
    with serving(box, keep_free=10**18) as running, running.client() as client:
        with pytest.raises(DiskFull, match=r"2\.1 MB of files do not fit .*, of which 1000000000000 MB shall stay so"):
            begun(client, plate, "third")
        assert client.request(ListJobs(states=(JobState.SUBMITTED,))).total == 0
    with serving(box, upload_limit=0) as running, running.client() as client, \
            pytest.raises(UsageError, match="takes no files"):
        begun(client, plate)


@pytest.mark.parametrize("size", ["nan", "inf", "-1", "1e300", "much"])
@pytest.mark.parametrize("option", ["upload-limit", "keep-free"])
def test_a_limit_is_a_number_of_gigabytes(option: str, size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", f"--{option}={size}"]) == UsageError.exit_code
    assert f'found "{size}"; allowed: a number' in capsys.readouterr().err


def test_the_limit_is_what_the_help_says(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["serve", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"takes none (default: {staging.LIMIT / 1e9:g})" in said
    assert f"leave free (default: {staging.KEEP_FREE / 1e9:g})" in said


def test_a_cancelled_upload_takes_nothing_more_and_cannot_be_tried_again(box: Path, plate: Path) -> None:
    with serving(box) as running, running.client() as client:
        job, files = begun(client, plate)
        client.request(Cancel(job=job.id))
        with pytest.raises(JobRefused, match="takes no files"):
            client.request(chunk(job.id, files[0], b"x"))
        with pytest.raises(JobRefused, match="not on the server"):
            client.request(Retry(job=job.id))
        with pytest.raises(JobRefused, match="files of a queued job are needed"):
            client.request(Discard(job=running.submit(client).id))


def test_a_job_that_is_cancelled_while_its_files_are_compared_is_not_said_to_be_queued(
        box: Path, plate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "shot.json"
    document.write_text(shot_of(plate).to_json())
    submit = ["submit", str(document), "--upload"]
    with serving(box) as running, running.client() as client:
        monkeypatch.setenv("FRESCO_CONNECTION", running.file)
        with monkeypatch.context() as patch:
            patch.setattr(Staging, "tend", lambda _staging: None)  # nothing is compared
            patch.setattr(transfer, "PAUSE", 0.0)

            def cancelling(told: transfer.Told | None, moved: transfer.Moved) -> None:
                if moved.what == "checking":
                    client.request(Cancel(job=client.request(ListJobs()).records[0].id))

            patch.setattr(transfer, "_tell", cancelling)
            assert cli.main(submit) == JobRefused.exit_code
        said = capsys.readouterr()
        assert (said.out, "was cancelled while its files came" in said.err) == ("", True)
        assert waited_for(lambda: cli.main(submit) == 0)
        assert client.request(ListJobs(states=(JobState.QUEUED,))).total == 1


def test_what_is_old_or_nobodys_goes(box: Path, plate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(box) as running, running.client() as client:
        job, _ = begun(client, plate)
        place = own_place(box)
        (place / ("0" * 24) / "plate").mkdir(parents=True)  # it had not begun when the server was killed
    with serving(box) as running, running.client() as client:
        assert waited_for(lambda: len(list(place.iterdir())) == 1)
        monkeypatch.setattr(staging, "KEPT", -1.0)
        running.server.transfers._cleaned = 0.0
        assert waited(client, job.id, lambda record: record.state is JobState.CANCELLED, 10)
        assert waited_for(lambda: not list(place.iterdir()))


DAY = 86_400.0


def rendered(box: Path, plate: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Job, Path]:
    """A job that was sent and has ended, whose server has ended too; and the folder of its files."""
    with with_worker(box, monkeypatch, COPIES) as running, running.client() as client:
        job = ended(client, sent(client, plate).id)
    return job, Path(job.output).parents[1]


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """From now on the clock of the day is ahead by so much."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + seconds)


def cleaned(running: Running) -> None:
    """Its folder of uploads was looked through."""
    running.server.transfers._cleaned = 0.0
    assert waited_for(lambda: running.server.transfers._cleaned > 0)


def test_a_box_that_was_off_for_long_has_what_it_rendered(
        box: Path, plate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, place = rendered(box, plate, monkeypatch)
    later(monkeypatch, 30 * DAY)
    with serving(box) as running, running.client() as client:
        cleaned(running)
        assert len(download(client, job.id, str(tmp_path / "back"))[1]) == len(SIZES)
    later(monkeypatch, 30 * DAY)
    with serving(box) as running:
        cleaned(running)
        assert place.is_dir(), "nor does the second time"


def test_a_clock_that_jumps_takes_no_files(box: Path, plate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, place = rendered(box, plate, monkeypatch)
    (plate / "p.1005.exr").write_bytes(b"another plate")
    with serving(box) as running, running.client() as client:
        waiting, _ = begun(client, plate, "waiting")
        queued = sent(client, plate, "queued")
        for jump in (30 * DAY, -40 * DAY, 400 * DAY):
            later(monkeypatch, jump)
            cleaned(running)
        assert place.is_dir()
        assert client.request(ShowJob(job=waiting.id)).record.state is JobState.SUBMITTED
        assert Path(queued.output).parent.is_dir()


def test_what_its_client_has_not_fetched_for_a_week_goes(
        box: Path, plate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, place = rendered(box, plate, monkeypatch)
    with serving(box) as running:
        for days in range(1, 9):
            cleaned(running)
            assert place.is_dir() == (days < 8), days
            monkeypatch.setattr(staging, "AWAY", 2 * DAY)  # as if it had looked meanwhile
            later(monkeypatch, DAY)


def test_the_week_begins_when_the_job_has_ended(box: Path, plate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "AWAY", 30 * DAY)  # as if it had looked meanwhile
    with serving(box) as running, running.client() as client:
        job = sent(client, plate)
        later(monkeypatch, 20 * DAY)
        cleaned(running)
        client.request(Cancel(job=job.id))
        later(monkeypatch, 6 * DAY)
        cleaned(running)
        assert Path(job.output).parent.is_dir()
        later(monkeypatch, 2 * DAY)
        cleaned(running)
        assert waited_for(lambda: not Path(job.output).parent.is_dir())


def test_servers_of_two_queues_leave_each_others_files(box: Path, plate: Path, tmp_path: Path) -> None:
    with serving(box) as running, running.client() as client:
        job, _ = begun(client, plate)
        (tmp_path / "other").mkdir()
        with serving(tmp_path / "other", roots=[box]) as second, second.client() as guest:
            second.server.transfers._cleaned = 0.0
            other, _ = begun(guest, plate)
            assert Path(other.output).parents[2] != Path(job.output).parents[2]
            assert sent(client, plate).state is JobState.QUEUED
            assert sent(guest, plate).state is JobState.QUEUED
    with serving(box) as running, running.client() as client:
        assert contents(Path(job.output).parents[1] / "plate") == contents(plate)


def test_a_file_that_the_servers_disk_refuses_is_told(
        box: Path, plate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Path, target: Path) -> Path:
        if self.name.endswith(".exr.part"):
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    rename = Path.replace
    with serving(box) as running, running.client() as client:
        monkeypatch.setattr(Path, "replace", failing)
        with pytest.raises(OutputDenied, match="Permission denied"):
            sent(client, plate)
        monkeypatch.undo()
        time.sleep(0.2)
        with suppress(OutputDenied):  # of those that were looked at meanwhile
            sent(client, plate)
        assert sent(client, plate).state is JobState.QUEUED


def test_only_what_the_shot_needs_is_sent(plate: Path) -> None:
    shot = shot_of(plate)
    few = replace(shot, plate=replace(shot.plate, frames=parse_frames("1002-1003")))
    assert sorted(staged(few).sources) == ["plate/p.1002.exr", "plate/p.1003.exr"]
    handles = replace(few, delivery=replace(few.delivery, handles=1))
    assert len(staged(handles).sources) == 4
    assert staged(shot).shot.plate.sequence == "staged:plate/p.####.exr"
    with pytest.raises(PlateMissing):
        staged(replace(shot, plate=Plate(sequence=str(plate / "q.####.exr"))))
    with pytest.raises(PlateMissing):
        staged(replace(shot, plate=replace(shot.plate, frames=parse_frames("1-48"))))


def sent_numbers(shot: Shot, folder: str = "plate") -> list[int]:
    return sorted(int(name.split(".")[-2]) for name in staged(shot).sources if name.startswith(f"{folder}/"))


@pytest.mark.parametrize(("frames", "needed"), [
    ("1003-1006", [1002, 1004, 1005, 1007]), ("1001-1003", [1001, 1002, 1004]), ("1001-1007x2", [1001, 1002, 1004, 1005,
                                                                                              1007])])
def test_what_stands_in_for_a_missing_frame_is_sent(tmp_path: Path, frames: str, needed: list[int]) -> None:
    """Else the box holds another frame than this machine would, or finds that the range leads out of the plate."""
    for number in (1001, 1002, 1004, 1005, 1007, 1008):
        (tmp_path / f"p.{number}.exr").touch()
    shot = replace(shot_of(tmp_path), plate=Plate(sequence=str(tmp_path / "p.####.exr"), frames=parse_frames(frames),
                                                  missing=Missing.HOLD))
    assert sent_numbers(shot) == needed


@pytest.mark.parametrize(("mattes", "plates", "given"), [
    ((1002, 1009), [*range(1002, 1010)], [1002, 1009]), ((1003,), [1003, 1004, 1005, 1006], [1003]),
    ((1001, 1005, 1006, 1009), [1005, 1006], [1005, 1006]), ((1002, 1020), [1002, 1003, 1004, 1005, 1006], [1002])])
def test_what_leads_from_a_matte_to_a_still_is_sent(
        tmp_path: Path, mattes: tuple[int, ...], plates: list[int], given: list[int]) -> None:
    """A matte that is propagated is drawn on few frames, and seldom on those that are rendered now."""
    for number in range(1001, 1011):
        (tmp_path / f"p.{number}.exr").touch()
    for number in mattes:
        (tmp_path / f"m.{number}.exr").touch()
    shot = replace(shot_of(tmp_path), plate=Plate(sequence=str(tmp_path / "p.####.exr"),
                                                  frames=parse_frames("1005-1006")),
                   matte=Matte(sequence=str(tmp_path / "m.####.exr"), propagate=True))
    assert sent_numbers(shot) == plates
    assert sent_numbers(shot, "matte") == given


def test_a_link_out_of_the_roots_is_no_place_for_files(box: Path, tmp_path: Path) -> None:
    (box / ".fresco-staged").symlink_to(tmp_path)
    with pytest.raises(PathRefused), serving(box):
        pass


def test_a_listing_comes_in_pages(box: Path, tmp_path: Path) -> None:
    with serving(box) as running, running.client() as client:
        job = running.submit(client).id
        for number in range(1200):
            (box / f"look.{number:04}.exr").touch()
        page = client.request(ListDelivery(job=job, skip=1000))
        assert (len(page.files), page.total) == (200, 1200)
        assert len(download(client, job, str(tmp_path / "back"))[1]) == 1200


def test_a_job_that_ends_while_its_files_are_listed_has_not_ended_for_its_client(
        box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what it delivered meanwhile would be deleted on the server, and be nowhere."""
    listed = transfers.Transfers.list_delivery

    def ends(self: transfers.Transfers, request: ListDelivery) -> DeliveryListed:
        page = listed(self, request)
        return replace(page, record=replace(page.record, state=JobState.DELIVERED)) if request.skip else page

    monkeypatch.setattr(transfers.Transfers, "list_delivery", ends)
    with serving(box) as running, running.client() as client:
        job = running.submit(client).id
        for number in range(1001):
            (box / f"look.{number:04}.exr").touch()
        record, _ = download(client, job, str(tmp_path / "back"))
        assert record.state is JobState.QUEUED


def test_a_chunk_fits_a_message() -> None:
    parts = encode(PutChunk(job="01234567", name="a", offset=0, sha256="0" * 64, data=bytes(LARGEST_CHUNK)), "t" * 64,
                   id="0" * 32)
    assert len(parts[4]) == LARGEST_CHUNK


