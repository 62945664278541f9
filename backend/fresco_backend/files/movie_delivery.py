# SPDX-License-Identifier: Apache-2.0
"""A delivery as one movie file, made of frames that were delivered before, with the sound of the plate.

The movie is put together at the end of a render from whole frames, so that a crash costs the movie and no frame.
"""
from __future__ import annotations

import errno
import heapq
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, TypeAlias

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from numpy.typing import NDArray

from fresco_backend.files.deliveries import make_writable, part_of, refuse_sources, refused
from fresco_backend.files.frame_pattern import MOVIES, is_movie_delivery
from fresco_backend.files.frames import FloatArray
from fresco_backend.files.movies import Sound
from fresco_protocol.errors import OutputError, OutputPattern

# Visually lossless, and read by every editor: H.264, 4:2:0, BT.709 in legal range, tagged with the pixels' sRGB curve.
# A number of threads of our own, because x264 makes other bytes with as many as a machine has cores.
_QUALITY = {"crf": "14", "preset": "medium", "threads": "8"}
# What each container carries as it is, by names of FFmpeg: in MP4 what players read, in MOV what cameras write too.
_CARRIED = {"mp4": re.compile("aac|mp3|ac3|eac3|alac|opus"),
            "mov": re.compile("aac|mp2|mp3|ac3|eac3|alac|pcm_(u8|s8|alaw|mulaw|[sf][0-9]{2}[bl]e)")}
_ENCODED = {"mp4": "aac", "mov": "pcm_s24le"}  # what the rest becomes
_STEADY = 50  # of a second: by less than such a part sound may stray from its time stamps, which MKV rounds
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}  # of AAC
_LUMA = (0.2126, 0.7152, 0.0722)  # Rec. ITU-R BT.709-6, item 3.2
_CHROMA = {2: 1.8556, 0: 1.5748}  # item 3.3: of blue and of red, what their difference from luma is divided by
SoundPacket: TypeAlias = "Packet[AudioStream]"


def check_movie(path: Path, sources: Iterable[Path]) -> None:
    """Check a movie's delivery before anything is rendered: its type, its folder, and that it is none of the sources.

    Raises OutputPattern, OutputIsPlate, OutputDenied, DiskFull.
    """
    _container(path)
    refuse_sources([path], sources)
    make_writable(path.parent)


def write_movie(path: Path, pictures: Iterable[NDArray[np.uint8]], rate: Fraction, sound: Sound | None = None,
                pixel_aspect: float = 1.0, timecode: str | None = None) -> int:
    """Write a movie and return the number of its frames.

    pictures: (H, W, 3) uint8, display-referred sRGB, all of one size; an odd width or height gains one column or row,
    repeated from the edge, because 4:2:0 cannot store it otherwise. rate: frames per second, kept exactly.
    pixel_aspect: width of a pixel over its height, of which the movie tells the players.
    timecode: of the first frame; its frames may go beyond a second ("01:00:00:100"), and FFmpeg counts them on.
    sound: copied packet by packet without a loss, except where the file cannot carry its codec: that becomes AAC in MP4
    (PCM), and PCM in MOV (FLAC, Opus, Vorbis).
    The file gets its name when it has been decoded again with every frame. Raises OutputError, DiskFull, OutputDenied.
    """
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aspect = Fraction(pixel_aspect).limit_denominator(1000)
        written = _encode(part, _container(path), _Pictures(pictures, rate, aspect, timecode), sound)
        found = _count(part)
        if found != written:
            raise OutputError(f"the movie reads back with {found} of {written} frames", where=path,
                              remedy="Check the free space of the disk and run the same command again.")
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (av.FFmpegError, OSError) as error:
        raise _failed(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink()
    return written


def _failed(path: Path, error: av.FFmpegError | OSError) -> OutputError:
    """What the system says of the disk, or FFmpeg of pictures and sound, which is no matter of rights and room."""
    if error.errno in errno.errorcode and error.errno != errno.EINVAL:
        return refused(path, OSError(error.errno, error.strerror))
    return OutputError(f"the movie cannot be encoded: {error.strerror or error}", where=path,
                       remedy="Deliver an image sequence, or a .mov, which takes more kinds of sound as they are.")


def _container(path: Path) -> str:
    if not is_movie_delivery(path):
        raise OutputPattern(f"'{path.suffix}' is no movie that Fresco writes", where=path,
                            remedy=f"Choose one of {', '.join(MOVIES)}, or an image sequence.")
    return MOVIES[path.suffix.lower()]


class _Pictures(NamedTuple):
    pictures: Iterable[NDArray[np.uint8]]
    rate: Fraction
    pixel_aspect: Fraction
    timecode: str | None


def _encode(part: Path, container: str, shown: _Pictures, sound: Sound | None) -> int:
    count, rate = 0, shown.rate
    with av.open(str(part), "w", format=container, options={"movflags": "+faststart"}) as movie:
        if shown.timecode:
            movie.metadata["timecode"] = shown.timecode
        video = movie.add_stream("libx264", rate=rate, options=_QUALITY)
        packets = iter(()) if sound is None else _sound(movie, container, sound)
        waiting = next(packets, None)
        for picture in map(_even, shown.pictures):
            if not count:
                _describe(video, picture, shown.pixel_aspect)
            movie.mux(video.encode(_converted(picture, count, rate)))
            count += 1
            while waiting is not None and _time(waiting) < count / rate:  # sound beside its pictures, for playing
                movie.mux(waiting)
                waiting = next(packets, None)
        if not count:
            raise OutputError("a movie needs at least one frame", where=part, remedy="Deliver the frames first.")
        movie.mux(video.encode(None))
        while waiting is not None:
            movie.mux(waiting)
            waiting = next(packets, None)
    return count


def _time(packet: SoundPacket) -> Fraction:
    return (packet.pts or 0) * packet.time_base


def _even(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    if height % 2 or width % 2:
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(picture)


def _describe(video: VideoStream, picture: NDArray[np.uint8], pixel_aspect: Fraction) -> None:
    video.height, video.width = picture.shape[:2]
    video.pix_fmt = "yuv420p"
    context = video.codec_context
    context.sample_aspect_ratio = pixel_aspect
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.IEC61966_2_1


def _converted(picture: NDArray[np.uint8], place: int, rate: Fraction) -> VideoFrame:
    frame = VideoFrame.from_ndarray(_legal(picture), format="yuv420p")
    frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.MPEG
    frame.pts, frame.time_base = place, 1 / rate
    return frame


def _legal(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Y', Cb and Cr of Rec. ITU-R BT.709 one below the other, (H * 3/2, W), in legal range and 4:2:0.

    Chroma lies on the left one of two columns and between two rows, where players of H.264 that are told nothing look
    for it. FFmpeg's scaler puts it between the columns, which moves it by half a pixel from movie to movie.
    """
    codes = picture.astype(np.float32)
    luma = sum((codes[:, :, channel] * share for channel, share in enumerate(_LUMA)), np.float32(0))  # no threads
    chroma = [_sited(codes[:, :, channel] - luma) / width for channel, width in _CHROMA.items()]
    levels = [16 + luma * (219 / 255), *(128 + plane * (224 / 255) for plane in chroma)]
    planes = np.concatenate([plane.reshape(-1, picture.shape[1]) for plane in levels])
    return np.asarray(np.rint(planes), np.uint8)


def _sited(difference: FloatArray) -> FloatArray:
    """(H, W) -> (H/2, W/2): the mean of two rows, and around every second column a quarter, a half, a quarter."""
    rows = (difference[::2] + difference[1::2]) / 2
    left = np.concatenate([rows[:, :1], rows[:, 1:-1:2]], axis=1)
    return np.asarray((left + 2 * rows[:, ::2] + rows[:, 1::2]) / 4, np.float32)


def _sound(movie: OutputContainer, container: str, sound: Sound) -> Iterator[SoundPacket]:
    """Packets of the stretch of sound, its start at time 0, of all tracks in the order of time.

    Streams are declared now, packets come when asked for. A track whose codec FFmpeg does not know is left out.
    """
    with av.open(str(sound.path)) as source:
        known = [place for place, stream in enumerate(source.streams.audio) if stream.codec_context is not None]
    return heapq.merge(*[_track(movie, container, sound, place) for place in known], key=_time)


def _track(movie: OutputContainer, container: str, sound: Sound, place: int) -> Iterator[SoundPacket]:
    source = av.open(str(sound.path))
    stream = source.streams.audio[place]
    if _CARRIED[container].fullmatch(stream.codec_context.codec.canonical_name):
        return _copied_sound(source, stream, movie.add_stream_from_template(stream), sound)
    encoder = movie.add_stream(_ENCODED[container], rate=stream.rate, layout=_layout(stream))
    assert isinstance(encoder, AudioStream), "both are codecs of sound"
    return _converted_sound(source, stream, encoder, sound)


def _layout(stream: AudioStream) -> str:
    """Where the channels of a track are heard; cameras record so many channels and say no more."""
    name = str(stream.layout.name)
    return _LAYOUTS.get(stream.channels, name) if name.endswith(" channels") else name


def _copied_sound(source: InputContainer, stream: AudioStream, target: AudioStream,
                  sound: Sound) -> Iterator[SoundPacket]:
    with source:
        for packet in source.demux(stream):
            if packet.pts is None or not _within(packet.pts * packet.time_base, sound):
                continue
            offset = round(sound.start / packet.time_base)
            packet.pts -= offset
            packet.dts = packet.pts
            packet.stream = target
            yield packet


def _converted_sound(source: InputContainer, stream: AudioStream, target: AudioStream,
                     sound: Sound) -> Iterator[SoundPacket]:
    """Encoded from the very sample on at which the stretch begins, with silence where the track has none."""
    fitting = AudioResampler(format="fltp", layout=target.layout.name, rate=stream.rate)
    place, end = 0, round(sound.seconds * stream.rate)
    with source:
        for heard in source.decode(stream):
            if heard.pts is None or heard.time_base is None:
                continue
            begins = round((heard.pts * heard.time_base - sound.start) * stream.rate)
            for piece in fitting.resample(heard):
                whole = np.asarray(piece.to_ndarray(), np.float32)
                for samples in _joined(whole, begins - place, stream.rate, silent=place == 0):
                    kept = samples[:, : end - place]
                    if kept.shape[1]:
                        yield from target.encode(_heard(kept, place, piece))
                    place += kept.shape[1]
                begins += piece.samples
        yield from target.encode(None)


def _joined(samples: FloatArray, gap: int, rate: int, *, silent: bool) -> Iterator[FloatArray]:
    """Samples (channels, N) that begin so many after those before them end, fewer than none where they overlap: with
    silence between, a second at most at a time, or without what overlaps. silent: there are none before them.
    """
    if not silent and abs(gap) < rate // _STEADY:
        gap = 0
    for begins in range(0, gap, rate):
        yield np.zeros((len(samples), min(rate, gap - begins)), np.float32)
    yield samples[:, max(-gap, 0) :]


def _heard(samples: FloatArray, place: int, like: AudioFrame) -> AudioFrame:
    """Planar floats (channels, N) as a frame that begins at this sample, of the layout and rate of another one."""
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=like.layout.name)
    frame.sample_rate, frame.pts, frame.time_base = like.sample_rate, place, Fraction(1, like.sample_rate)
    return frame


def _within(time: Fraction, sound: Sound) -> bool:
    return sound.start <= time < sound.start + sound.seconds


def _count(path: Path) -> int:
    with av.open(str(path)) as movie:
        return sum(1 for _ in movie.decode(movie.streams.video[0]))
