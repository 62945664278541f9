# SPDX-License-Identifier: Apache-2.0
"""Renders that end in a movie: its rate, its colour, its sound, and how it goes on after an interruption."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio  # noqa: N813
import plates
import pytest
from shots import bits, delivered, rendered, small_shot, with_delivery, with_look, with_plate, write_plate
from test_movies import encode, heard, picture, with_sound

from fresco_backend import pipeline
from fresco_backend.events import Event, Finished, Warned
from fresco_backend.files.deliveries import DeliveryWriter
from fresco_backend.files.frames import ExtraChannel, cleaned, pixel_aspect
from fresco_backend.files.movie_delivery import write_movie
from fresco_backend.files.movies import MovieReader
from fresco_backend.pixels.color import srgb_encode
from fresco_backend.render.job import open_job
from fresco_backend.render.movie import assemble
from fresco_protocol.errors import ColorError, OutputIsPlate, OutputPattern, UsageError
from fresco_protocol.shot import BitDepth, Rate, Shot, parse_frames

NTSC = Rate(numerator=24000, denominator=1001)


@pytest.fixture
def shot(tiny_model: Path, tmp_path: Path) -> Shot:
    """A sequence of six frames to become a movie at the film rate of NTSC countries."""
    pattern = write_plate(tmp_path / "plate", 6)
    return with_plate(small_shot(pattern, tiny_model, tmp_path / "out" / "look.mov"), rate=NTSC)


@pytest.fixture
def plain(tiny_model: Path, tmp_path: Path) -> Shot:
    """A movie of two seconds with sound, to be delivered as it is."""
    movie = with_sound(tmp_path / "plate.mov", 2)
    return with_look(small_shot(movie, tiny_model, tmp_path / "out" / "look.mov"), strength=0.0)


def finished(events: list[Event]) -> Finished:
    (last,) = [event for event in events if isinstance(event, Finished)]
    return last


def test_a_movie_without_a_rate_is_refused_before_anything_is_rendered(shot: Shot, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="frame rate") as caught:
        rendered(with_plate(shot, rate=None))
    assert caught.value.where == "plate.rate"
    with pytest.raises(UsageError, match="frame rate"):
        pipeline.plan(with_plate(shot, rate=None))
    assert not (tmp_path / "out").exists()


def test_a_movie_has_every_frame_at_the_exact_rate_and_no_scratch_beside_it(shot: Shot, tmp_path: Path) -> None:
    events = rendered(shot)
    reader = MovieReader(tmp_path / "out" / "look.mov")
    assert (reader.count, reader.rate) == (6, Fraction(24000, 1001))
    assert finished(events).outputs == (str(reader.path),)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["look.mov", "look.mov.fresco.json"]


def test_a_movie_that_is_finished_is_not_rendered_again_and_a_lost_one_is(shot: Shot, tmp_path: Path) -> None:
    rendered(shot, keep_scratch=True)
    path = tmp_path / "out" / "look.mov"
    (scratch,) = (tmp_path / "out" / ".fresco").iterdir()
    pictures, time = bits(scratch), path.stat().st_mtime_ns
    again = finished(rendered(shot))
    assert (again.rendered, again.reused, path.stat().st_mtime_ns) == (0, 6, time)
    path.write_bytes(b"another movie")
    assert finished(rendered(shot, keep_scratch=True)).rendered == 6
    assert bits(scratch) == pictures  # the encoder does not always give the same bits for the same pictures
    assert MovieReader(path).count == 6


def test_an_interrupted_movie_goes_on_with_its_pictures(shot: Shot, tmp_path: Path) -> None:
    events = pipeline.render(shot)
    seen = [next(events) for _ in range(12)]
    events.close()
    assert delivered(seen) != []
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".fresco"]
    last = finished(rendered(shot))
    assert (last.reused, last.rendered) == (len(delivered(seen)), 6 - len(delivered(seen)))
    assert MovieReader(tmp_path / "out" / "look.mov").count == 6


def test_the_last_chunk_of_a_movie_writes_it(shot: Shot, tmp_path: Path) -> None:
    first = rendered(shot, selection=[1001, 1002, 1003])
    assert [event.code for event in first if isinstance(event, Warned)] == ["movie-incomplete"]
    assert all(Path(output).is_file() for output in finished(first).outputs)
    assert not (tmp_path / "out" / "look.mov").exists()
    last = rendered(shot, selection=[1004, 1005, 1006])
    assert finished(last).outputs == (str(tmp_path / "out" / "look.mov"),)
    assert MovieReader(tmp_path / "out" / "look.mov").count == 6


def test_a_plate_in_linear_light_with_other_channels_becomes_srgb(tiny_model: Path, tmp_path: Path) -> None:
    alpha = np.full((64, 64), 0.5, np.float32)
    depth = ExtraChannel(name="Z", samples=plates.noise(64, 64), format=BitDepth.FLOAT)
    light = plates.frame(64, 64, alpha=alpha)
    light = replace(light, pixels=np.full_like(light.pixels, 0.25), extra=(depth,))
    writer = DeliveryWriter(tmp_path / "plate.%04d.exr", [1, 2], like=light)
    for number in (1, 2):
        writer.write(number, light, "0")
    shot = with_plate(small_shot(tmp_path / "plate.%04d.exr", tiny_model, tmp_path / "out.mp4"), rate=NTSC)
    rendered(with_look(shot, strength=0.0))
    shown = MovieReader(tmp_path / "out.mp4").read(1).pixels
    assert cleaned(shown).replaced == 0
    assert np.abs(shown - srgb_encode(np.full_like(shown, 0.25))).max() < 2 / 255
    with pytest.raises(ColorError, match="a movie is written in sRGB"):
        rendered(with_delivery(shot, color_space="linear-rec709"))


def test_the_sound_of_the_plate_comes_along(plain: Shot, tmp_path: Path) -> None:
    events = rendered(with_plate(plain, frames=None))
    codec, samples, _ = heard(tmp_path / "out" / "look.mov")
    assert codec == "aac"
    assert len(samples) / 48000 == pytest.approx(2, abs=0.06)
    assert not [event for event in events if isinstance(event, Warned)]
    shown = MovieReader(tmp_path / "out" / "look.mov").read(7).pixels
    assert np.abs(shown * 255 - picture(7)).mean() < 3


def test_sound_that_would_run_away_is_left_out_with_a_word(plain: Shot, tmp_path: Path) -> None:
    events = rendered(with_plate(plain, rate=Rate(numerator=24)))
    assert [event.code for event in events if isinstance(event, Warned)] == ["sound-left-out"]
    reader = MovieReader(tmp_path / "out" / "look.mov")
    assert reader.rate == Fraction(24)
    assert not reader.has_audio


def timecoded(path: Path, timecode: str, rate: Fraction, count: int = 12) -> Path:
    """A movie of numbered pictures that says when it begins."""
    write_movie(path, (picture(number) for number in range(1, count + 1)), rate, timecode=timecode)
    return path


@pytest.mark.parametrize(("begins", "rate", "expected"), [
    ("01:00:10:20", Fraction(24), "01:00:11:00"), ("01:00:59;28", Fraction(30000, 1001), "01:01:00;04"),
    ("", Fraction(25), "00:00:00:04")])
def test_a_movie_begins_where_its_frames_do_on_the_plates_clock(
        begins: str, rate: Fraction, expected: str, tiny_model: Path, tmp_path: Path) -> None:
    """Editing programs find the frames of a clip by their time code; a plate without one counts from 0."""
    movie = timecoded(tmp_path / "plate.mov", begins, rate)
    for name in ("look.mov", "look.mp4"):
        shot = with_look(small_shot(movie, tiny_model, tmp_path / "out" / name), strength=0.0)
        rendered(with_plate(shot, frames=parse_frames("5-8")))
        with closing(MovieReader(tmp_path / "out" / name)) as made:
            assert made.timecode == expected


def test_a_movie_of_a_sequence_takes_the_time_code_of_its_first_picture(tiny_model: Path, tmp_path: Path) -> None:
    first = plates.frame(64, 64)
    first.metadata.attribute("smpte:TimeCode", oiio.TypeDesc("timecode"), (0x01001005, 0))
    writer = DeliveryWriter(tmp_path / "plate.%04d.exr", [1, 2], like=first)
    for number in (1, 2):
        writer.write(number, first, "0")
    shot = with_plate(small_shot(tmp_path / "plate.%04d.exr", tiny_model, tmp_path / "out.mov"), rate=NTSC)
    rendered(with_look(shot, strength=0.0))
    with closing(MovieReader(tmp_path / "out.mov")) as made:
        assert made.timecode == "01:00:10:05"


@pytest.mark.parametrize("rate", [Rate(numerator=24), None])
def test_no_time_code_is_made_up(rate: Rate | None, tiny_model: Path, tmp_path: Path) -> None:
    """At another rate or with frames left out the plate's clock is not the movie's."""
    movie = timecoded(tmp_path / "plate.mov", "01:00:00:00", Fraction(25))
    shot = with_look(small_shot(movie, tiny_model, tmp_path / "out.mov"), strength=0.0)
    rendered(with_plate(shot, frames=parse_frames("1-8" if rate else "1-7x2"), rate=rate))
    with closing(MovieReader(tmp_path / "out.mov")) as made:
        assert made.timecode is None


@pytest.mark.parametrize(("options", "codes"), [({"x264-params": "tff=1"}, ["interlaced"]), ({}, [])])
def test_an_interlaced_plate_is_said_before_it_is_rendered(
        options: dict[str, str], codes: list[str], tiny_model: Path, tmp_path: Path) -> None:
    movie = encode(tmp_path / "plate.mov", range(1, 4), options=options)
    planned = pipeline.plan(with_plate(small_shot(movie, tiny_model, tmp_path / "out.mov"), frames=None))
    assert [warning.code for warning in planned.warnings] == codes


def test_a_plate_of_no_constant_rate_is_told(tiny_model: Path, tmp_path: Path) -> None:
    """Frames that were lost: those after them come too early."""
    path = encode(tmp_path / "whole.ts", range(1, 41), options={"g": "10", "bf": "0"})
    content = path.read_bytes()
    (tmp_path / "plate.ts").write_bytes(content[: len(content) // 2 // 188 * 188] + content[-len(content) // 8 :])
    shot = with_plate(small_shot(tmp_path / "plate.ts", tiny_model, tmp_path / "out.mov"), frames=None)
    assert [warning.code for warning in pipeline.plan(shot).warnings] == ["uneven"]


@pytest.mark.parametrize(("named", "codes"), [(None, ["unknown-colours"]), ("sRGB", [])])
def test_colours_that_have_no_name_are_told_unless_somebody_names_them(
        named: str | None, codes: list[str], tiny_model: Path, tmp_path: Path) -> None:
    """Of primaries of film under the usual curve."""
    movie = encode(tmp_path / "plate.mov", range(1, 4), options={"x264-params": "colorprim=film"})
    shot = with_plate(small_shot(movie, tiny_model, tmp_path / "out.mov"), frames=None, color_space=named)
    assert [warning.code for warning in pipeline.plan(shot).warnings] == codes


@pytest.mark.parametrize("wish", [{"bit_depth": BitDepth.HALF}, {"compression": "prores"}])
def test_a_movie_of_other_bits_than_it_gets_is_refused(wish: dict[str, Any], plain: Shot) -> None:
    with pytest.raises(OutputPattern, match=r"H\.264 of 8 bits"):
        rendered(with_delivery(plain, **wish))
    with closing(open_job(with_delivery(plain, bit_depth=BitDepth.UINT8))) as job:
        job.writer()


def test_a_movie_is_never_written_over_its_plate(plain: Shot) -> None:
    with pytest.raises(OutputIsPlate):
        rendered(with_delivery(plain, sequence=plain.plate.sequence))


def test_nothing_is_assembled_without_a_rate(shot: Shot) -> None:
    job = open_job(shot)
    writer = job.writer()
    unrated = replace(job, shot=with_plate(job.shot, rate=None))
    with pytest.raises(UsageError, match="needs one"):
        next(iter(assemble(unrated, writer)))
    job.close()


def test_pixels_that_are_not_square_stay_so(tmp_path: Path) -> None:
    pictures = [np.full((48, 64, 3), 90, np.uint8)] * 3
    write_movie(tmp_path / "wide.mov", pictures, Fraction(24), pixel_aspect=2.0)
    with closing(MovieReader(tmp_path / "wide.mov")) as movie:
        assert pixel_aspect(movie.read(1)) == 2.0


def pictures_that_are_turned(folder: Path, tag: int, extension: str) -> Path:
    """A sequence of two pictures of 64 x 48 whose tag tells viewers how to turn them."""
    stored = np.asarray(picture(5) / 255, np.float32)
    stored[:12] = (1, 0, 0)
    kind = {"exr": "openexr", "tif": "tiff"}[extension]
    like = plates.header(plates.with_pixels(plates.frame(64, 48, depth=BitDepth.FLOAT, file_type=kind), stored),
                         Orientation=tag, PixelAspectRatio=2.0)
    writer = DeliveryWriter(folder / f"plate.####.{extension}", [1, 2], like=like)
    for number in (1, 2):
        writer.write(number, like, "0")
    return folder / f"plate.####.{extension}"


@pytest.mark.parametrize("tag", range(1, 9))
def test_pictures_that_viewers_turn_make_an_upright_movie(tag: int, tiny_model: Path, tmp_path: Path) -> None:
    plate = pictures_that_are_turned(tmp_path, tag, "tif")
    shot = with_plate(small_shot(plate, tiny_model, tmp_path / "out.mov"), rate=NTSC)
    warned = [event.code for event in rendered(with_look(shot, strength=0.0)) if isinstance(event, Warned)]
    assert ("turned" in warned) is (tag != 1)
    upright = oiio.ImageBufAlgo.reorient(oiio.ImageBuf(str(tmp_path / "plate.0001.tif")))
    shown = np.asarray(upright.get_pixels(oiio.FLOAT))
    with closing(MovieReader(tmp_path / "out.mov")) as made:
        assert made.read(1).pixels.shape == shown.shape
        assert np.abs(made.read(1).pixels - shown).mean() < 0.04
        assert pixel_aspect(made.read(1)) == (2.0 if tag < 5 else 0.5)


def test_a_tag_of_an_exr_turns_nothing(tiny_model: Path, tmp_path: Path) -> None:
    plate = pictures_that_are_turned(tmp_path, 6, "exr")
    shot = with_plate(small_shot(plate, tiny_model, tmp_path / "out.mov"), rate=NTSC)
    events = rendered(with_look(shot, strength=0.0))
    assert "turned" not in [event.code for event in events if isinstance(event, Warned)]
    with closing(MovieReader(tmp_path / "out.mov")) as made:
        assert made.size == (64, 48)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_movie_has_the_same_bytes_on_any_number_of_cores(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 240, 320, 3), np.uint8)
    code = ("import os, sys; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[2])]);"
            "import numpy as np; from pathlib import Path; from fractions import Fraction;"
            "from fresco_backend.files.movie_delivery import write_movie;"
            "write_movie(Path(sys.argv[1]) / f'{sys.argv[2]}.mov', np.load(sys.argv[1] + '/noise.npy'), Fraction(24))")
    np.save(tmp_path / "noise.npy", noise)
    for cores in ("1", "2"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path), cores], check=True,
                       env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert (tmp_path / "1.mov").read_bytes() == (tmp_path / "2.mov").read_bytes()
