# SPDX-License-Identifier: Apache-2.0
"""Movie plates and movie deliveries: every frame, at its place, at the exact rate, with its sound."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from numpy.typing import NDArray

from fresco_backend.files import movie_delivery, movies
from fresco_backend.files.movie_delivery import check_movie, write_movie
from fresco_backend.files.movies import MovieReader, Sound, is_movie
from fresco_backend.pixels.color import plate_space, unknown_colours
from fresco_protocol.errors import (
    FrameSize,
    FrameUnreadable,
    InputError,
    OutputDenied,
    OutputError,
    OutputIsPlate,
    OutputPattern,
    PlateMissing,
    RangeOutside,
)
from fresco_protocol.shot import BitDepth

NTSC = Fraction(24000, 1001)
BITS = 8


def picture(number: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """A picture that tells its number, as stripes of black and white, to any codec."""
    bits = [(number >> bit) & 1 for bit in range(BITS)]
    stripes = np.repeat(np.array(bits, np.uint8) * 200 + 28, width // BITS)
    return np.broadcast_to(
        np.pad(stripes, (0, width - len(stripes)), mode="edge")[None, :, None], (height, width, 3)
    ).copy()


def number_of(pixels: NDArray[np.float32]) -> int:
    middle = pixels[pixels.shape[0] // 2, :, 1]
    step = pixels.shape[1] // BITS
    return sum(int(middle[bit * step + step // 2] > 0.5) << bit for bit in range(BITS))


def encode(
    path: Path,
    numbers: Iterable[int],
    *,
    rate: Fraction = NTSC,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    rotation: float | None = None,
) -> Path:
    """A movie of numbered pictures; without options a long group of pictures with B-frames."""
    pictures = [VideoFrame.from_ndarray(picture(number), format="rgb24") for number in numbers]
    return encode_frames(path, pictures, rate=rate, codec=codec, pix_fmt=pix_fmt, options=options, rotation=rotation)


def encode_frames(
    path: Path,
    pictures: Iterable[VideoFrame],
    *,
    rate: Fraction = NTSC,
    codec: str,
    pix_fmt: str,
    options: dict[str, str] | None = None,
    rotation: float | None = None,
) -> Path:
    with av.open(str(path), "w") as movie:
        stream = movie.add_stream(codec, rate=rate, options=options or {"g": "30", "bf": "3", "preset": "veryfast"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for place, source in enumerate(pictures):
            shown = source.reformat(format=pix_fmt)
            shown.pts, shown.time_base = place, 1 / rate
            movie.mux(stream.encode(shown))
        movie.mux(stream.encode(None))
    return path


def with_sound(path: Path, seconds: float, codec: str = "aac") -> Path:
    """A movie of numbered pictures at 25 a second with a tone whose pitch rises with time."""
    with av.open(str(path), "w") as movie:
        audio = movie.add_stream(codec, rate=48000, layout="mono")
        video = movie.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        assert isinstance(audio, AudioStream)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for place in range(round(seconds * 25)):
            shown = VideoFrame.from_ndarray(picture(place + 1), format="rgb24").reformat(format="yuv420p")
            shown.pts, shown.time_base = place, Fraction(1, 25)
            movie.mux(video.encode(shown))
        movie.mux(video.encode(None))
        time = np.arange(round(seconds * 48000)) / 48000
        tone = (np.sin(2 * np.pi * (200 + 200 * time) * time) * 12000).astype(np.int16)
        for start in range(0, len(tone), 1024):
            piece = AudioFrame.from_ndarray(tone[None, start : start + 1024], format="s16", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = 48000, start, Fraction(1, 48000)
            movie.mux(audio.encode(piece))
        movie.mux(audio.encode(None))
    return path


def heard(path: Path) -> tuple[str, NDArray[np.float32], float]:
    """Codec, samples and first time of the sound of a movie."""
    with av.open(str(path)) as movie:
        stream = movie.streams.audio[0]
        frames = [(frame.time, frame.to_ndarray().astype(np.float32).ravel()) for frame in movie.decode(stream)]
        return stream.codec_context.name, np.concatenate([samples for _, samples in frames]), float(frames[0][0] or 0)


def test_frames_count_from_one_and_are_counted_by_decoding(tmp_path: Path) -> None:
    reader = MovieReader(encode(tmp_path / "a.mp4", range(1, 72)))
    assert reader.count == 71
    assert reader.numbers == tuple(range(1, 72))
    assert reader.rate == NTSC
    assert reader.size == (64, 48)
    assert not reader.has_audio
    assert [number_of(reader.read(number).pixels) for number in reader.numbers] == list(range(1, 72))


def test_a_cut_file_has_only_the_frames_that_decode(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", range(1, 61), options={"g": "10", "bf": "0", "preset": "veryfast"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with av.open(str(path)) as movie:
        assert movie.duration is not None
        assert round(movie.duration * NTSC / 1_000_000) == 60  # what the header still says
    reader = MovieReader(path)
    assert 10 < reader.count < 60
    assert number_of(reader.read(reader.count).pixels) == reader.count


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_random_access_is_exact(tmp_path: Path, name: str) -> None:
    open_groups = {"g": "12", "bf": "3", "x264-params": "open-gop=1:scenecut=0", "preset": "veryfast"}
    reader = MovieReader(encode(tmp_path / name, range(1, 121), options=open_groups))
    order = [120, 1, 110, 109, 108, 13, 12, 60, 61, 120, 2, 100, 37, 1]
    assert [number_of(reader.read(number).pixels) for number in order] == order
    with av.open(str(tmp_path / name)) as movie:
        straight = [shown.to_ndarray(format="rgb24") for shown in movie.decode(video=0)][109]
    assert reader.read(110).pixels * 255 == pytest.approx(straight, abs=4)  # two converters round differently


def test_a_jump_that_lands_on_other_pixels_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some streams decode differently after a jump (broken references); here every one of them does."""
    decoded = movies._decoded
    jumps: list[int | None] = []
    seen: list[InputContainer] = []

    def broken_after_a_jump(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        jumped = container in seen
        seen.append(container)
        for shown in decoded(container, stream):
            if jumped:
                jumps.append(shown.pts)
                pts, base = shown.pts, shown.time_base
                shown = VideoFrame.from_ndarray(np.zeros((72, 64), np.uint8), format="yuv420p")
                shown.pts, shown.time_base = pts, base
            yield shown

    monkeypatch.setattr(movies, "_decoded", broken_after_a_jump)
    reader = MovieReader(encode(tmp_path / "a.mp4", range(1, 151), options={"g": "10", "preset": "veryfast"}))
    order = [150, 55, 130, 62, 8, 140]
    assert [number_of(reader.read(number).pixels) for number in order] == order
    assert jumps  # it tried, saw the difference, and went straight through


@pytest.mark.parametrize(("rate", "name"), [(Fraction(25), "a.mp4"), (NTSC, "a.mkv"), (Fraction(30000, 1001), "a.mov")])
def test_the_rate_is_an_exact_rational(tmp_path: Path, rate: Fraction, name: str) -> None:
    assert MovieReader(encode(tmp_path / name, range(20), rate=rate)).rate == rate


@pytest.mark.parametrize(("rotation", "turned"), [(90, 1), (-90, 3), (180, 2)])
def test_a_rotated_movie_is_read_upright(tmp_path: Path, rotation: int, turned: int) -> None:
    plain = MovieReader(encode(tmp_path / "a.mov", [5], codec="mjpeg", pix_fmt="yuvj420p", options={"q": "2"}))
    reader = MovieReader(
        encode(tmp_path / "b.mov", [5], codec="mjpeg", pix_fmt="yuvj420p", options={"q": "2"}, rotation=rotation)
    )
    assert reader.size == ((64, 48) if turned == 2 else (48, 64))
    assert reader.read(1).size == reader.size
    assert np.array_equal(reader.read(1).pixels, np.rot90(plain.read(1).pixels, turned))


def test_deep_and_transparent_pixel_formats_keep_their_bits(tmp_path: Path) -> None:
    deep = MovieReader(encode(tmp_path / "a.mov", [3], codec="prores_ks", pix_fmt="yuv422p10le")).read(1)
    assert deep.format is BitDepth.UINT16
    steps = np.arange(64 * 48).reshape(48, 64, 1).repeat(3, axis=2) % 1024
    ramp = VideoFrame.from_ndarray((steps * 64).astype(np.uint16), format="rgb48le")
    encode_frames(tmp_path / "d.mkv", [ramp], codec="ffv1", pix_fmt="gbrp10le")
    assert MovieReader(tmp_path / "d.mkv").read(1).pixels * 1023 == pytest.approx(steps, abs=1)
    clear = MovieReader(encode(tmp_path / "b.mov", [3], codec="prores_ks", pix_fmt="yuva444p10le")).read(1)
    assert clear.alpha is not None
    assert clear.alpha.min() > 0.99
    lossless = MovieReader(encode(tmp_path / "c.mkv", [3], codec="ffv1", pix_fmt="bgr0")).read(1)
    assert np.array_equal(np.round(lossless.pixels * 255), picture(3))


def plain_picture(layout: str, planes: tuple[int, ...], full: bool) -> VideoFrame:
    """A picture of one colour, by the codes of its planes, of 16 bits each."""
    made = VideoFrame(64, 48, layout)
    for plane, code in zip(made.planes, planes, strict=True):
        plane.update(np.full(plane.buffer_size // 2, code, np.uint16).tobytes())
    made.colorspace, made.color_range = Colorspace.ITU709, ColorRange.JPEG if full else ColorRange.MPEG
    return made


@pytest.mark.parametrize(("layout", "planes", "full", "light", "alpha"), [
    ("yuv422p10le", (940, 512, 512), False, 1, None), ("yuv422p10le", (502, 512, 512), False, 0.5, None),
    ("yuv420p10le", (64, 512, 512), False, 0, None), ("yuv422p10le", (1019, 512, 512), False, 1, None),
    ("yuva444p12le", (3760, 2048, 2048, 4095), False, 1, 1), ("yuva444p10le", (502, 512, 512, 0), False, 0.5, 0),
    ("yuv444p16le", (60160, 32768, 32768), False, 1, None), ("yuv420p10le", (1023, 512, 512), True, 1, None),
    ("yuv444p12le", (2048, 2048, 2048), True, 2048 / 4095, None), ("gray10le", (1023,), True, 1, None),
    ("gray12le", (1024,), True, 1024 / 4095, None), ("gbrp10le", (1023, 1023, 1023), False, 1, None)])
def test_white_is_white_and_opaque_is_opaque_whatever_the_bits(
        layout: str, planes: tuple[int, ...], full: bool, light: float, alpha: float | None) -> None:
    """By the codes of Rec. ITU-R BT.709 and BT.2100: 940 of 10 bits is white in legal range, 1023 in full range."""
    shown = movies._frame(plain_picture(layout, planes, full), NTSC, None)
    assert shown.pixels == pytest.approx(np.full((48, 64, 3), light), abs=5e-5)
    assert shown.pixels.max() <= 1
    if light == 1:
        assert shown.pixels.min() == 1
    assert (shown.alpha is None) is (alpha is None)
    if shown.alpha is not None:
        assert shown.alpha.min() == shown.alpha.max() == alpha


def test_colour_follows_the_matrix_of_the_file(tmp_path: Path) -> None:
    red = np.zeros((48, 64, 3), np.uint8)
    red[:] = (220, 30, 40)
    write_movie(tmp_path / "a.mp4", [red] * 3, Fraction(24))
    assert MovieReader(tmp_path / "a.mp4").read(2).pixels * 255 == pytest.approx(red, abs=3)


@pytest.mark.parametrize(("curve", "primaries", "space", "unknown"), [
    (ColorTrc.SMPTE2084, ColorPrimaries.BT2020, "Rec.2100-PQ - Display", False),
    (ColorTrc.SMPTE2084, ColorPrimaries.SMPTE432, "ST2084-P3-D65 - Display", False),
    (ColorTrc.ARIB_STD_B67, ColorPrimaries.BT2020, "Rec.2100-HLG - Display", False),
    (ColorTrc.BT709, ColorPrimaries.SMPTE432, "sRGB Encoded P3-D65", False),
    (ColorTrc.BT709, ColorPrimaries.BT709, "sRGB Encoded Rec.709 (sRGB)", False),
    (ColorTrc.BT709, ColorPrimaries.SMPTE170M, "sRGB Encoded Rec.709 (sRGB)", False),
    (ColorTrc.SMPTE428, ColorPrimaries.SMPTE432, "sRGB Encoded Rec.709 (sRGB)", True),
    (ColorTrc.BT2020_10, ColorPrimaries.BT2020, "sRGB Encoded Rec.2020", False),
    (ColorTrc.BT709, ColorPrimaries.BT2020, "sRGB Encoded Rec.2020", False),
    (ColorTrc.BT709, ColorPrimaries.FILM, "sRGB Encoded Rec.709 (sRGB)", True)])
def test_a_movie_has_the_colour_space_that_it_declares_or_says_that_it_is_unknown(
        tmp_path: Path, curve: ColorTrc, primaries: ColorPrimaries, space: str, unknown: bool) -> None:
    with av.open(str(tmp_path / "a.mov"), "w") as movie:
        stream = movie.add_stream("prores_ks", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv422p10le"
        stream.codec_context.color_trc, stream.codec_context.color_primaries = curve, primaries
        movie.mux(stream.encode(VideoFrame.from_ndarray(picture(1), format="rgb24").reformat(
            format="yuv422p10le", dst_color_trc=curve, dst_color_primaries=primaries)))
        movie.mux(stream.encode(None))
    plate = MovieReader(tmp_path / "a.mov").read(1)
    assert str(plate_space(plate)) == space
    assert (unknown_colours(plate) is not None) is unknown


def test_bad_movies_are_named(tmp_path: Path) -> None:
    with pytest.raises(PlateMissing):
        MovieReader(tmp_path / "a.mp4")
    for content in (b"", b"not a movie" * 50):
        (tmp_path / "b.mp4").write_bytes(content)
        with pytest.raises(FrameUnreadable, match=r"b\.mp4"):
            MovieReader(tmp_path / "b.mp4")
    path = encode(tmp_path / "c.mp4", range(1, 31))
    path.write_bytes(path.read_bytes()[:-2000])  # the table of frames stands at the end
    with pytest.raises(FrameUnreadable):
        MovieReader(path)


def test_frames_outside_the_movie_and_no_frames_are_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", range(1, 11))
    with pytest.raises(RangeOutside, match=r"0,11-12.*1-10"):
        MovieReader(path, [0, 1, 11, 12])
    with pytest.raises(InputError, match="no frame"):
        MovieReader(path, [])
    assert MovieReader(path, [4, 2]).numbers == (2, 4)


def test_a_movie_that_changes_its_size_is_refused(tmp_path: Path) -> None:
    first, second = encode(tmp_path / "a.ts", range(1, 9)), tmp_path / "b.ts"
    write_movie(tmp_path / "b.mp4", [picture(1, 128, 64)] * 8, NTSC)
    with av.open(str(tmp_path / "b.mp4")) as source, av.open(str(second), "w") as movie:
        stream = movie.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                movie.mux(packet)
    (tmp_path / "c.ts").write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(FrameSize, match=r"128x64.*64x48"):
        MovieReader(tmp_path / "c.ts")


@pytest.mark.parametrize("name", ["out.mp4", "out.mov"])
def test_a_movie_is_delivered_whole_at_the_exact_rate(tmp_path: Path, name: str) -> None:
    assert write_movie(tmp_path / "new" / name, (picture(n) for n in range(1, 31)), NTSC) == 30
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]
    reader = MovieReader(tmp_path / "new" / name)
    assert reader.rate == NTSC
    assert [number_of(reader.read(number).pixels) for number in reader.numbers] == list(range(1, 31))


def test_an_odd_size_gains_a_row_and_a_column(tmp_path: Path) -> None:
    write_movie(tmp_path / "a.mp4", [picture(9, 65, 47)] * 2, Fraction(24))
    reader = MovieReader(tmp_path / "a.mp4")
    assert reader.size == (66, 48)
    assert number_of(reader.read(1).pixels) == 9


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
@pytest.mark.parametrize("name", ["out.mp4", "out.mov"])
def test_the_sound_of_the_range_comes_along(tmp_path: Path, codec: str, name: str) -> None:
    plate = MovieReader(with_sound(tmp_path / "plate.mov", 3, codec))
    assert plate.has_audio
    frames = range(26, 66)
    excerpt = MovieReader(plate.path, frames)
    write_movie(tmp_path / name, (picture(n) for n in frames), plate.rate, excerpt.sound())
    assert MovieReader(plate.path, [26, 28]).sound() is None
    kind, samples, start = heard(tmp_path / name)
    assert kind == ("aac" if codec == "aac" or name == "out.mp4" else codec)
    assert len(samples) / 48000 == pytest.approx(1.6, abs=0.06)
    assert start == pytest.approx(0, abs=0.03)
    crossings = np.count_nonzero(np.diff(np.sign(samples[4800:28800])) > 0) / 0.5  # Hz, of a tone of 200 + 400 t
    assert crossings == pytest.approx(200 + 400 * (1 + 0.35), rel=0.05)
    assert MovieReader(tmp_path / name).count == len(frames)


def add_pictures(movie: OutputContainer, count: int) -> None:
    """Pictures at 25 a second; sound has its streams already."""
    video = movie.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
    video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
    for place in range(count):
        shown = VideoFrame.from_ndarray(picture(place + 1), format="rgb24").reformat(format="yuv420p")
        shown.pts, shown.time_base = place, Fraction(1, 25)
        movie.mux(video.encode(shown))
    movie.mux(video.encode(None))


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
@pytest.mark.parametrize("name", ["out.mp4", "out.mov"])
def test_every_track_of_sound_comes_along(tmp_path: Path, codec: str, name: str) -> None:
    """As cameras record them: one microphone a track."""
    with av.open(str(tmp_path / "plate.mov"), "w") as movie:
        tracks: list[AudioStream] = []
        for _ in range(3):
            stream = movie.add_stream(codec, rate=48000, layout="mono")
            assert isinstance(stream, AudioStream)
            tracks.append(stream)
        add_pictures(movie, 25)
        for start in range(0, 48000, 1000):
            for number, track in enumerate(tracks, 1):
                tone = np.sin(np.arange(start, start + 1000) * 2 * np.pi * 480 * number / 48000 + 1) * 9000
                piece = AudioFrame.from_ndarray(tone.astype(np.int16)[None], format="s16", layout="mono")
                piece.sample_rate, piece.pts, piece.time_base = 48000, start, Fraction(1, 48000)
                movie.mux(track.encode(piece))
        for track in tracks:
            movie.mux(track.encode(None))
    plate = MovieReader(tmp_path / "plate.mov")
    write_movie(tmp_path / name, (picture(n) for n in range(1, 26)), plate.rate, plate.sound())
    pitches = []
    with av.open(str(tmp_path / name)) as made:
        for place in range(len(made.streams.audio)):
            made.seek(0)
            samples = np.concatenate([frame.to_ndarray().astype(np.float32).ravel()
                                      for frame in made.decode(made.streams.audio[place])])
            pitches.append(np.count_nonzero(np.diff(np.sign(samples[4800:28800])) > 0) / 0.5)
    assert pitches == pytest.approx([480, 960, 1440], rel=0.02)


def with_clicks(path: Path, codec: str, begins: int) -> Path:
    """A movie of three seconds at 25 a second whose sound begins so many samples later, in pieces of half a second.

    Of each second of its clock half of the last tenth sounds.
    """
    with av.open(str(path), "w") as movie:
        audio = movie.add_stream(codec, rate=48000, layout="mono")
        assert isinstance(audio, AudioStream)
        add_pictures(movie, 75)
        time = np.arange(begins, 3 * 48000)
        clicks = np.where(time % 48000 >= 45600, 20000, 0).astype(np.int16)
        for start in range(0, len(clicks), 24000):
            piece = AudioFrame.from_ndarray(clicks[None, start : start + 24000], format="s16", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = 48000, begins + start, Fraction(1, 48000)
            movie.mux(audio.encode(piece))
        movie.mux(audio.encode(None))
    return path


@pytest.mark.parametrize("begins", [0, 40000])
@pytest.mark.parametrize(("source", "codec", "name", "kind"), [
    ("plate.mov", "pcm_s16le", "out.mp4", "aac"),
    ("plate.mkv", "pcm_s16le", "out.mp4", "aac"),
    ("plate.mkv", "flac", "out.mov", "pcm_s24le"),
    ("plate.mkv", "wavpack", "out.mov", "pcm_s24le")])
def test_sound_that_is_encoded_anew_stays_beside_its_pictures(
        tmp_path: Path, source: str, codec: str, name: str, kind: str, begins: int) -> None:
    frames = range(8, 66)  # from 0.28 seconds on
    plate = MovieReader(with_clicks(tmp_path / source, codec, begins), frames)
    write_movie(tmp_path / name, (picture(n) for n in frames), plate.rate, plate.sound())
    found, samples, start = heard(tmp_path / name)
    loud = np.flatnonzero(np.abs(samples) > 0.3 * np.abs(samples).max())
    firsts = loud[np.flatnonzero(np.diff(loud, prepend=-9999) > 9999)]
    assert found == kind
    assert start + firsts / 48000 == pytest.approx([0.95 - 0.28, 1.95 - 0.28], abs=0.002)
    assert start + len(samples) / 48000 == pytest.approx(58 / 25, abs=0.03)


def test_sound_of_codecs_that_a_movie_carries_is_copied(tmp_path: Path) -> None:
    plate = MovieReader(with_sound(tmp_path / "plate.mkv", 1, "libmp3lame"))
    for name in ("out.mp4", "out.mov"):
        write_movie(tmp_path / name, (picture(n) for n in range(1, 26)), plate.rate, plate.sound())
        assert heard(tmp_path / name)[0].startswith("mp3")


@pytest.mark.parametrize("axis", [0, 1])
def test_chroma_stays_where_it_is_from_movie_to_movie(tmp_path: Path, axis: int) -> None:
    """Waves of red and green of one luma; chroma beside its place would be a phase of them."""
    wave = 60 * np.sin(2 * np.pi * np.arange(128) / 32)
    across = np.stack([128 + wave, 128 - wave * 0.2126 / 0.7152, np.full(128, 128)], axis=-1)
    shown = np.rint(np.broadcast_to(across, (128, 128, 3))).astype(np.uint8)
    shown = shown if axis else np.ascontiguousarray(shown.transpose(1, 0, 2))

    def phase(codes: NDArray[np.generic]) -> float:
        return float(np.angle(np.fft.fft(codes[:, :, 0].mean(axis=1 - axis))[4]))

    again = shown
    for turn in range(2):
        write_movie(tmp_path / f"{turn}.mov", [again] * 2, Fraction(24))
        again = np.rint(MovieReader(tmp_path / f"{turn}.mov").read(1).pixels * 255).astype(np.uint8)
    assert (phase(again) - phase(shown)) * 32 / (2 * np.pi) == pytest.approx(0, abs=0.1)  # pixels
    assert np.abs(again.astype(int) - shown).mean() < 2


def test_a_delivery_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterable[NDArray[np.uint8]]:
        yield picture(1)
        raise RuntimeError("the render failed")

    with pytest.raises(RuntimeError, match="render failed"):
        write_movie(tmp_path / "a.mp4", broken(), NTSC)
    with pytest.raises(OutputError, match="at least one frame"):
        write_movie(tmp_path / "a.mp4", [], NTSC)
    with pytest.raises(OutputPattern, match=r"\.webm"):
        write_movie(tmp_path / "a.webm", [picture(1)], NTSC)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        write_movie(tmp_path / "file" / "a.mp4", [picture(1)], NTSC)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_ffmpeg_cannot_encode_is_no_matter_of_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movie_delivery, "_LAYOUTS", {1: "1 channels"})
    with av.open(str(tmp_path / "plate.mov"), "w") as movie:
        track = movie.add_stream("pcm_s16le", rate=48000, layout="1 channels")
        assert isinstance(track, AudioStream)
        piece = AudioFrame.from_ndarray(np.zeros((1, 4800), np.int16), format="s16", layout="mono")
        piece.sample_rate, piece.pts, piece.time_base = 48000, 0, Fraction(1, 48000)
        movie.mux(track.encode(piece))
    sound = Sound(path=tmp_path / "plate.mov", start=Fraction(0), seconds=Fraction(1))
    with pytest.raises(OutputError, match="the movie cannot be encoded") as failed:
        write_movie(tmp_path / "a.mp4", [picture(1)], NTSC, sound)
    assert ".mov" in str(failed.value.remedy)
    assert [path.name for path in tmp_path.iterdir()] == ["plate.mov"]


def test_a_movie_delivery_is_checked_before_rendering(tmp_path: Path) -> None:
    plate = encode(tmp_path / "plate.mp4", range(3))
    check_movie(tmp_path / "new" / "out.mov", [plate])
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "link.mp4").symlink_to(plate)
    for path in (plate, tmp_path / "new" / ".." / "plate.mp4", tmp_path / "link.mp4"):
        with pytest.raises(OutputIsPlate):
            check_movie(path, [plate])
    with pytest.raises(OutputPattern):
        check_movie(tmp_path / "out.gif", [plate])
    with pytest.raises(OutputDenied):
        check_movie(plate / "out.mp4", [plate])


LIMITED = """
import resource, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from fresco_backend.files import movies
from fresco_backend.files.movie_delivery import write_movie
from fresco_protocol.errors import FrescoError
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # from here on a file of more bytes is refused
noise = np.random.default_rng(0).integers(0, 255, (8, 128, 128, 3), np.uint8)
try:
    write_movie(Path(sys.argv[1]), noise, Fraction(24))
except FrescoError as error:
    print(error.code)
"""


def test_a_full_disk_leaves_no_movie(tmp_path: Path) -> None:
    program = f"import sys; sys.path[:0] = {[path for path in sys.path if path]!r}\n{LIMITED}"
    command = [sys.executable, "-c", program, str(tmp_path / "a.mp4")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "disk-full"
    assert list(tmp_path.iterdir()) == []


def test_movies_are_told_from_sequences() -> None:
    assert is_movie("a/b.MOV")
    assert not is_movie("a/b.%04d.exr")


@pytest.mark.parametrize("name", ["a.mov", "a.mkv"])
def test_frames_that_stray_from_the_rate_are_told(tmp_path: Path, name: str) -> None:
    """Ten frames at 25 a second, then ten at 12.5; Matroska rounds each time to milliseconds."""
    with av.open(str(tmp_path / name), "w") as movie:
        stream = movie.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for place in range(20):
            shown = VideoFrame.from_ndarray(picture(place + 1), format="rgb24").reformat(format="yuv420p")
            shown.pts, shown.time_base = max(place, 2 * place - 10), Fraction(1, 25)
            movie.mux(stream.encode(shown))
        movie.mux(stream.encode(None))
    with closing(MovieReader(tmp_path / name)) as reader:
        assert float(reader.straying) == pytest.approx(10 / float(reader.rate) - 10 / 25, abs=0.002)
    with closing(MovieReader(encode(tmp_path / f"even-{name}", range(1, 72)))) as even:
        assert even.straying < Fraction(1, 500)


def test_the_mean_rate_is_taken_where_the_header_disagrees_with_the_time_stamps(tmp_path: Path) -> None:
    """Footage of a telephone: a header of 30 frames a second, and longer steps in the dark."""
    stamps = [0]
    for place in range(60):
        stamps.append(stamps[-1] + (3000 if place % 3 else 4500))
    with av.open(str(tmp_path / "a.mp4"), "w") as movie:
        stream = movie.add_stream("libx264", rate=30, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90000)
        for number, stamp in enumerate(stamps, start=1):
            shown = VideoFrame.from_ndarray(picture(number), format="rgb24").reformat(format="yuv420p")
            shown.pts, shown.time_base = stamp, Fraction(1, 90000)
            movie.mux(stream.encode(shown))
        movie.mux(stream.encode(None))
    reader = MovieReader(tmp_path / "a.mp4")
    assert reader.count == 61
    assert reader.rate == Fraction(60 * 90000, stamps[-1])
