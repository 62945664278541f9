# SPDX-License-Identifier: Apache-2.0
"""What a shot must have to be queued: a slip of the pen is said at once, and a plate on its way is waited for."""
from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from servers import serving, shot_in

from fresco_backend.files.frame_pattern import file_type
from fresco_backend.models.model_store import Changes, check
from fresco_backend.server import reception, server
from fresco_backend.server.reception import Reception
from fresco_protocol.client import Client
from fresco_protocol.errors import (
    Busy,
    MatteError,
    OutputIsPlate,
    OutputPattern,
    PlateMissing,
    RangeOutside,
    ServerSilent,
    UsageError,
    WeightsMissing,
)
from fresco_protocol.files import File
from fresco_protocol.job import JobState
from fresco_protocol.messages import Cancel, ListJobs, Submit, fresh_key
from fresco_protocol.shot import Control, ControlKind, Delivery, Lora, Matte, Plate, Shot, parse_frames


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with serving(tmp_path) as running, running.client() as client:
        yield client


@pytest.fixture
def shot(tmp_path: Path) -> Shot:
    """It is taken; its plate is plate.1001.exr in the root."""
    return shot_in(tmp_path)


def submitted(client: Client, shot: Shot, key: str | None = None) -> str:
    return client.request(Submit(shot=shot, client_key=key or fresh_key())).record.id


def of_plate(shot: Shot, name: str, frames: str | None = None) -> Shot:
    return replace(shot, plate=Plate(sequence=str(Path(shot.plate.sequence).with_name(name)),
                                     frames=parse_frames(frames) if frames else None))


@pytest.mark.parametrize(("name", "why", "remedy"), [
    ("plaet.####.exr", "no file of the plate", "Did you mean plate.####.exr"),
    ("plate.######.exr", "no file of the plate", "one padding"),
    ("sub/plate.####.exr", "folder of the plate does not exist", "path"),
    ("clip.mov", "no file of the plate", "name"),
    ("still.1001.exr", "no file of the plate", "Check the name")])
def test_a_plate_of_which_nothing_is_there_is_refused(
        client: Client, shot: Shot, name: str, why: str, remedy: str) -> None:
    wrong = replace(shot, plate=Plate(sequence=f"{Path(shot.plate.sequence).parent}/{name}"))
    with pytest.raises(PlateMissing, match=why) as caught:
        submitted(client, wrong)
    assert remedy in str(caught.value.remedy)
    assert name in str(caught.value.where)
    assert client.request(ListJobs()).total == 0


def test_frames_of_which_none_is_there_are_refused(client: Client, shot: Shot) -> None:
    with pytest.raises(RangeOutside, match="it has 1001"):
        submitted(client, of_plate(shot, "plate.####.exr", "1-48"))
    submitted(client, of_plate(shot, "plate.####.exr", "1001-1048"))  # another program still renders the others
    submitted(client, of_plate(shot, "plate.1001.exr", "1"))  # the worker's to judge


@pytest.mark.parametrize("name", ["plate.####.exr", "plate.%04d.exr", "sub/../plate.####.exr", "link/plate.####.exr"])
def test_a_delivery_over_its_plate_is_refused(client: Client, shot: Shot, name: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OutputIsPlate, match="overwrite its own source") as caught:
        submitted(client, replace(shot, delivery=Delivery(sequence=f"{tmp_path}/{name}")))
    assert "plate.1001.exr" in str(caught.value.where)


def test_neighbours_of_a_plate_are_no_plate(client: Client, shot: Shot, tmp_path: Path) -> None:
    for name in ("plate.######.exr", "plate.####.png", "plates.####.exr"):
        submitted(client, replace(shot, delivery=Delivery(sequence=f"{tmp_path}/{name}")))


def test_mattes_and_control_images_are_looked_for_too(client: Client, shot: Shot, tmp_path: Path) -> None:
    path = f"{tmp_path}/other.####.exr"
    control = Control(kind=ControlKind.SEQUENCE, sequence=path)
    masked, controlled = replace(shot, matte=Matte(sequence=path)), replace(
        shot, look=replace(shot.look, controls=(control,)))
    with pytest.raises(MatteError, match="matte is missing"):
        submitted(client, masked)
    with pytest.raises(PlateMissing, match="control images are missing"):
        submitted(client, controlled)
    (tmp_path / "other.0007.exr").touch()
    submitted(client, masked)
    submitted(client, controlled)


def test_what_a_job_is_to_deliver_is_waited_for(client: Client, shot: Shot) -> None:
    """A look over a look: both may be queued in the evening."""
    first = submitted(client, shot)
    over = Delivery(sequence=str(Path(shot.delivery.sequence).with_name("second.####.exr")))
    second = of_plate(replace(shot, delivery=over), "look.%04d.exr", "1001-1048")
    assert submitted(client, second)
    client.request(Cancel(job=first))
    with pytest.raises(PlateMissing):
        submitted(client, second)


def test_a_job_that_was_accepted_stays_so(client: Client, shot: Shot, tmp_path: Path) -> None:
    """The same submit comes again where its answer was lost."""
    job = submitted(client, shot, "key")
    (tmp_path / "plate.1001.exr").unlink()
    assert submitted(client, shot, "key") == job
    assert [record.state for record in client.request(ListJobs()).records] == [JobState.QUEUED]


def test_a_pattern_that_is_none_is_refused(client: Client, shot: Shot, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pattern"):
        submitted(client, of_plate(shot, "plate.####.a.1001-x##.exr"))


@pytest.mark.parametrize(("name", "why"), [
    ("look.####.gif", "'.gif' is no file type that Fresco writes"), ("look", "names no file type")])
def test_a_file_type_that_is_not_written_is_refused(client: Client, shot: Shot, name: str, why: str) -> None:
    wrong = replace(shot, delivery=Delivery(sequence=str(Path(shot.delivery.sequence).with_name(name))))
    with pytest.raises(OutputPattern, match=why) as caught:
        submitted(client, wrong)
    with pytest.raises(OutputPattern) as rendered:
        file_type(wrong.delivery.sequence)
    assert str(caught.value) == str(rendered.value)


@pytest.mark.parametrize("look", [
    {"model": "my-modle"}, {"vae": "my-vae"}, {"loras": (Lora(model="ink"),)},
    {"controls": (Control(kind=ControlKind.CANNY, model="my-control"),)}])
def test_a_model_that_is_not_there_is_refused_in_the_words_of_a_render(
        client: Client, shot: Shot, look: dict[str, Any]) -> None:
    wrong = replace(shot, look=replace(shot.look, **look))
    with pytest.raises(WeightsMissing) as caught:
        submitted(client, wrong)
    with pytest.raises(WeightsMissing) as rendered:
        check(wrong.look.model, controls=wrong.look.controls or (), changes=Changes.of(wrong.look)).require()
    assert str(caught.value) == str(rendered.value)
    assert client.request(ListJobs()).total == 0


def test_files_are_not_asked_for_when_the_model_is_missing(client: Client, shot: Shot) -> None:
    """Else hours of sending come before the first word of it."""
    sent = replace(shot, plate=Plate(sequence="staged:plate/p.####.exr"), look=replace(shot.look, model="my-modle"),
                   delivery=Delivery(sequence="staged:delivery/look.####.exr"))
    files = (File(name="plate/p.1001.exr", size=1, sha256=64 * "0"),)
    with pytest.raises(WeightsMissing):
        client.request(Submit(shot=sent, client_key=fresh_key(), files=files))
    assert client.request(ListJobs()).total == 0


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A share that does not answer until the event is set, or the test is over."""
    back, usual = threading.Event(), Path.iterdir

    def hanging(path: Path) -> Iterator[Path]:
        if path.name == "share":
            back.wait(60)
        return usual(path)

    monkeypatch.setattr(Path, "iterdir", hanging)
    yield back
    back.set()


def of_share(shot: Shot, folder: Path) -> Shot:
    (folder / "share").mkdir()
    (folder / "share" / "plate.1001.exr").touch()
    return replace(shot, plate=Plate(sequence=str(folder / "share" / "plate.####.exr")))


def test_a_share_that_hangs_keeps_nobody_but_who_asked_for_it(
        tmp_path: Path, shot: Shot, share: threading.Event) -> None:
    """The same request comes again meanwhile, as from a host that is impatient: it is one job."""
    hanging = Submit(shot=of_share(shot, tmp_path), client_key="key")
    with serving(tmp_path) as running, running.client() as patient, running.client() as impatient, \
            running.client() as others, ThreadPoolExecutor() as threads:
        waiting = threads.submit(patient.request, hanging, seconds=30)
        with pytest.raises(ServerSilent):
            impatient.request(hanging, seconds=0.5)
        other = submitted(others, shot)
        assert [record.id for record in others.request(ListJobs()).records] == [other]
        again = threads.submit(impatient.request, hanging, seconds=30)
        time.sleep(0.2)
        assert not waiting.done()
        share.set()
        assert waiting.result().record.id == again.result().record.id != other


def test_a_share_that_stays_away_is_told(
        tmp_path: Path, shot: Shot, share: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "Reception", partial(Reception, patience=0.3))
    monkeypatch.setattr(reception, "MOST", 2)
    hanging = of_share(shot, tmp_path)
    with serving(tmp_path) as running, running.client() as client:
        for _ in range(2):
            with pytest.raises(Busy, match="do not answer within") as caught:
                submitted(client, hanging)
            assert str(tmp_path / "share") in str(caught.value.where)
        with pytest.raises(Busy, match="too many"):  # a thread that hangs cannot be ended
            submitted(client, hanging)
        assert client.request(ListJobs()).total == 0
        share.set()
        deadline = time.monotonic() + 20
        while not client.request(ListJobs()).total:
            assert time.monotonic() < deadline
            with suppress(Busy):
                submitted(client, hanging)
