# SPDX-License-Identifier: Apache-2.0
"""Plates that are movie files (through PyAV).

Movies lie: their headers about the number of frames, their time stamps about the distance between frames, their seek
tables about where a picture can be found. So a plate is decoded once when it is opened; from then on the number of
its frames is known, and a picture that was reached by a jump must have the checksum that it had in that first pass.
"""
from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
import OpenImageIO as oiio  # noqa: N813, the name in its own manual
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from fresco_backend.files.frames import Channels, FloatArray, Frame, Size, Window
from fresco_backend.files.sequences import frames_text
from fresco_backend.files.timecode import packed
from fresco_protocol.errors import FrameSize, FrameUnreadable, InputError, PlateMissing, RangeOutside
from fresco_protocol.shot import BitDepth

READABLE = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mxf", ".mpg", ".mpeg", ".ts", ".gif")
_CACHED = 8  # decoded pictures kept, for callers that step back by a frame or two
_UNSAID = 2  # AVCOL_SPC_UNSPECIFIED
# Curves of Rec. ITU-R BT.2100, which telephones and graders write: names of the Color Interop Forum.
_HDR: dict[int, str] = {ColorTrc.SMPTE2084: "pq_rec2020_display", ColorTrc.ARIB_STD_B67: "hlg_rec2020_display"}
_PQ_OF_P3, _P3 = "pq_p3d65_display", "srgb_p3d65_scene"
_USUAL_CURVES = (ColorTrc.BT709, ColorTrc.UNSPECIFIED, ColorTrc.SMPTE170M, ColorTrc.IEC61966_2_1, ColorTrc.BT2020_10,
                 ColorTrc.BT2020_12)  # whose codes are shown as sRGB's are
_NEAR = 48  # frames; up to here decoding on is cheaper than a jump to the key frame before
_EXACT = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


def is_movie(path: str | Path) -> bool:
    """Whether a path names a movie that can be a plate, by its extension. (`frame_pattern.MOVIES` are delivered.)"""
    return Path(path).suffix.lower() in READABLE


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A stretch of the sound of a movie. start, seconds: on the clock of that file."""

    path: Path
    start: Fraction
    seconds: Fraction


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One picture as the first pass saw it."""

    pts: int | None
    key: bool
    checksum: int
    interlaced: bool


class MovieReader:
    """A movie file that is open for reading (a `plate.PlateReader`); its frames count from 1.

    count: the frames that were decoded. rate: frames per second. has_audio: whether there is sound to copy.
    """

    def __init__(self, path: Path, numbers: Sequence[int] | None = None) -> None:
        """Decode the movie once to know its frames. numbers: the frames to render; None is all.

        Raises PlateMissing, FrameUnreadable (no picture can be decoded), RangeOutside.
        """
        if not path.is_file():
            raise PlateMissing("the movie does not exist", where=path, remedy="Check the path.")
        self.path = path
        self._container, self._stream = _opened(path)
        self._index, self.size = _indexed(self._container, self._stream, path)
        self.count = len(self._index)
        self.window = self.display = Window(0, 0, *self.size)
        self.rate: Fraction = _rate(self._stream, self._index)
        self.has_audio = bool(self._container.streams.audio)
        self.numbers: tuple[int, ...] = self._wanted(numbers)
        self._seekable = len({entry.pts for entry in self._index} - {None}) == self.count
        self._begins = self.timecode
        self._cache: OrderedDict[int, VideoFrame] = OrderedDict()
        self._rewind()

    @property
    def files(self) -> tuple[Path, ...]:
        """The movie itself."""
        return (self.path,)

    @property
    def existing(self) -> tuple[int, ...]:
        """Every frame of the movie."""
        return tuple(range(1, self.count + 1))

    @property
    def timecode(self) -> str | None:
        """The time code of the movie's first frame, as the file or a track of it states it; None when none does."""
        stated = [self._container.metadata, *(stream.metadata for stream in self._container.streams)]
        named = (text for found in stated for name, text in found.items() if name.lower() == "timecode")  # MKV shouts
        return next(named, None)

    @property
    def interlaced(self) -> bool:
        """Whether the movie says of any of the frames to render that it holds two fields of different moments."""
        return any(self._index[number - 1].interlaced for number in self.numbers)

    @property
    def straying(self) -> Fraction:
        """Seconds by which the frames to render lie at most from where the rate puts them, counted from the first.

        Telephones and recorders of screens write frames when they have one, and a damaged file lacks some.
        """
        first = self.numbers[0]
        start = self._seconds(first)
        return max(abs(self._seconds(number) - start - (number - first) / self.rate) for number in self.numbers)

    def source(self, _number: int) -> Path:
        """The file that a frame is read from."""
        return self.path

    def read(self, number: int) -> Frame:
        """The frame of this number, upright, as full-range RGB, with its time code. Raises FrameUnreadable."""
        if not 1 <= number <= self.count:
            raise ValueError(f"frame {number} is not in 1-{self.count}")
        frame = _frame(self._picture(number - 1), self.rate, self._stream.sample_aspect_ratio)
        clock = packed(self._begins or "", number - 1, self.rate)
        if clock is not None:
            frame.metadata.attribute("smpte:TimeCode", oiio.TypeDesc("timecode"), clock)
        return frame

    def read_channels(self, number: int) -> Channels:
        """The channels "R", "G", "B", and "A" where the movie has it, each (H, W) in [0, 1]. Raises as `read` does."""
        frame = self.read(number)
        found = {name: frame.pixels[:, :, place] for place, name in enumerate(frame.channels)}
        alpha = {} if frame.alpha is None else {frame.alpha_name: frame.alpha}
        return Channels(by_name={**found, **alpha}, metadata=frame.metadata)

    def sound(self) -> Sound | None:
        """The sound of the frames to render; None when there is none, or when frames are left out between them."""
        first, last = self.numbers[0], self.numbers[-1]
        if not self.has_audio or len(self.numbers) != last - first + 1:
            return None
        start = self._seconds(first)
        return Sound(path=self.path, start=start, seconds=self._seconds(last) - start + 1 / self.rate)

    def _seconds(self, number: int) -> Fraction:
        """When the frame is shown, on the clock of the file, which its sound follows too."""
        pts, base = self._index[number - 1].pts, self._stream.time_base
        return (number - 1) / self.rate if pts is None or base is None else pts * base

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _wanted(self, numbers: Sequence[int] | None) -> tuple[int, ...]:
        if numbers is None:
            return tuple(range(1, self.count + 1))
        if not numbers:
            raise InputError("the range holds no frame", where=self.path, remedy="Ask for at least one frame.")
        outside = [number for number in numbers if not 1 <= number <= self.count]
        if outside:
            raise RangeOutside(f"frames {frames_text(outside)} lie outside the movie, which has 1-{self.count}",
                               where=self.path, remedy=f"Choose frames from 1 to {self.count}; movies count from 1")
        return tuple(sorted(set(numbers)))

    def _picture(self, place: int) -> VideoFrame:
        while place not in self._cache:
            if not 0 <= place - self._next < _NEAR:
                self._jump(place)
            while self._next <= place:
                self._advance()
            if place not in self._cache:
                self._distrust(place)
        return self._cache[place]

    def _distrust(self, place: int) -> None:
        """A jump did not give the picture of the first pass: from now on only straight through from the start."""
        if not self._seekable:
            raise FrameUnreadable(f"frame {place + 1} decodes differently each time", where=self.path,
                                  remedy="Export the movie as an image sequence.")
        self._seekable = False
        self._rewind()

    def _advance(self) -> None:
        """Decode one picture, and keep it if it is the one of the first pass."""
        try:
            picture = next(self._pictures, None)
        except av.FFmpegError:
            picture = None
        if picture is None:
            self._next = self.count
            return
        if _checksum(picture) == self._index[self._next].checksum:
            self._cache[self._next] = picture
        self._next += 1
        while len(self._cache) > _CACHED:
            self._cache.popitem(last=False)

    def _rewind(self) -> None:
        self._container.close()
        self._container, self._stream = _opened(self.path)
        self._pictures: Iterator[VideoFrame] = _decoded(self._container, self._stream)
        self._next = 0
        self._cache.clear()

    def _jump(self, place: int) -> None:
        """Go to the key frame at or before `place`, or to the start where time stamps prove nothing."""
        start = max((k for k in range(place + 1) if self._index[k].key), default=0)
        if place >= self._next and start <= self._next:
            return  # the key frame lies behind: decoding on is the shortest way
        if not self._seekable or start == 0:
            self._rewind()
            return
        pts = self._index[start].pts
        pictures = _decoded(self._container, self._stream)
        try:
            self._container.seek(pts or 0, stream=self._stream, backward=True)
            found = next((picture for picture in pictures if picture.pts == pts), None)
        except av.FFmpegError:  # not every file can be entered in the middle
            found = None
        if found is None:
            self._seekable = False
            self._rewind()
        else:
            self._pictures, self._next = chain([found], pictures), start


def _opened(path: Path) -> tuple[InputContainer, VideoStream]:
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise FrameUnreadable(f"this movie cannot be opened: {_reason(error)}", where=path,
                              remedy="Copy it again, or export it as an image sequence.") from error
    if not container.streams.video:
        container.close()
        raise FrameUnreadable("this file holds no pictures", where=path, remedy="Choose a movie or an image sequence.")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    return container, stream


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    yield from container.decode(stream)


def _indexed(container: InputContainer, stream: VideoStream, path: Path) -> tuple[list[_Entry], Size]:
    index: list[_Entry] = []
    size: Size | None = None
    try:
        for picture in _decoded(container, stream):
            size = size or _upright_size(picture)
            if _upright_size(picture) != size:
                raise FrameSize(f"frame {len(index) + 1} is {_upright_size(picture)}, and those before it {size}",
                                where=path, remedy="Export the movie in one size.")
            index.append(_Entry(pts=picture.pts, key=bool(picture.key_frame), checksum=_checksum(picture),
                                interlaced=bool(picture.interlaced_frame)))
    except (av.FFmpegError, OSError) as error:
        raise FrameUnreadable(f"this movie breaks off after frame {len(index)}: {_reason(error)}", where=path,
                              remedy="Copy it again, or export the good part.") from error
    if size is None:
        raise FrameUnreadable("no frame of this movie can be decoded", where=path, remedy="Copy it again.")
    return index, size


def _checksum(picture: VideoFrame) -> int:
    """CRC-32 of the visible samples; the padding at the end of each row is whatever memory held before."""
    value = 0
    for place, plane in enumerate(picture.planes):
        samples = np.frombuffer(memoryview(plane), np.uint8)[: plane.height * plane.line_size]
        rows = samples.reshape(plane.height, plane.line_size)[:, : _row_bytes(picture, place)]
        value = zlib.crc32(rows.tobytes(), value)
    return value


def _row_bytes(picture: VideoFrame, place: int) -> int:
    width, layout = picture.planes[place].width, picture.format
    if len(picture.planes) == 1:
        return width * layout.padded_bits_per_pixel // 8
    return width * sum((component.bits + 7) // 8 for component in layout.components if component.plane == place)


def _upright_size(picture: VideoFrame) -> Size:
    turned = picture.rotation % 180 == 90
    return Size(picture.height, picture.width) if turned else Size(picture.width, picture.height)


def _rate(stream: VideoStream, index: Sequence[_Entry]) -> Fraction:
    """Frames per second: what the header says if the time stamps agree to within their own rounding, else their mean.

    Containers round time stamps (Matroska to milliseconds), so a header's 24000/1001 is better than the mean; and
    headers of variable or edited footage are wrong, so the mean is better there: it keeps the sound in step.
    """
    said = [Fraction(rate) for rate in (stream.guessed_rate, stream.average_rate) if rate]
    first, last = index[0].pts, index[-1].pts
    if first is None or last is None or last <= first or stream.time_base is None:
        return said[0] if said else Fraction(24)
    seconds, steps = (last - first) * stream.time_base, len(index) - 1
    agreeing = [rate for rate in said if abs(seconds - steps / rate) <= 2 * stream.time_base]
    return agreeing[0] if agreeing else (steps / seconds).limit_denominator(1001)


def _frame(picture: VideoFrame, rate: Fraction, pixel_aspect: Fraction | None) -> Frame:
    deep = max(component.bits for component in picture.format.components) > 8
    clear = any(component.is_alpha for component in picture.format.components)
    layout = ("rgba64le" if clear else "rgb48le") if deep else ("rgba" if clear else "rgb24")
    codes = picture.reformat(format=layout, src_colorspace=_matrix(picture), dst_color_range=ColorRange.JPEG,
                             interpolation=_EXACT).to_ndarray()
    codes = np.rot90(codes, picture.rotation // 90)
    white, opaque = _whites(picture) if deep else (255, 255)
    pixels = _share(codes[:, :, :3], white)
    depth = BitDepth.UINT16 if deep else BitDepth.UINT8
    header = oiio.ImageSpec(codes.shape[1], codes.shape[0], codes.shape[2], depth.value)
    header.attribute("FramesPerSecond", oiio.TypeDesc("rational"), (rate.numerator, rate.denominator))
    header.attribute("CICP", oiio.TypeDesc("int[4]"),  # ITU-T H.273: primaries, curve, no matrix any more, full range
                     (int(picture.color_primaries), int(picture.color_trc), 0, 1))
    space = _space(picture)
    if space is not None:
        header.attribute("oiio:ColorSpace", space)
    if pixel_aspect:
        upright = picture.rotation // 90 % 2 == 0
        header.attribute("PixelAspectRatio", float(pixel_aspect if upright else 1 / pixel_aspect))
    return Frame(pixels=pixels, channels=("R", "G", "B"), associated=False,
                 alpha=_share(codes[:, :, 3], opaque) if clear else None, format=depth, file_type="movie",
                 metadata=header)


def _share(codes: NDArray[Any], white: int) -> FloatArray:
    """Codes as a share of white, in [0, 1]."""
    samples: FloatArray = np.ascontiguousarray(codes, np.float32) / np.float32(white)
    return np.minimum(samples, 1, out=samples)


def _whites(picture: VideoFrame) -> tuple[int, int]:
    """The codes of 16 bits that libswscale makes of white and of an opaque alpha.

    It makes 255 of legal white and shifts that by 8 bits; those of full range, of greys and of alpha it shifts upwards
    and fills none below. Taken for 65535 they would be a white of 0.996, and an opaque alpha of 0.999.
    """
    layout = picture.format
    if layout.is_rgb or layout.name.startswith("xyz"):
        return 65535, 65535
    bits = min(layout.components[0].bits, 16)
    shifted = ((1 << bits) - 1) << 16 - bits
    legal = len(layout.components) > 2 and picture.color_range != ColorRange.JPEG
    return 65280 if legal else shifted, shifted


def _space(picture: VideoFrame) -> str | None:
    """The colour space that a movie in PQ, HLG or Display P3 declares; None for every other, whose codes decide."""
    if picture.color_primaries == ColorPrimaries.SMPTE432:
        if picture.color_trc in _USUAL_CURVES:
            return _P3
        if picture.color_trc == ColorTrc.SMPTE2084:
            return _PQ_OF_P3
    return _HDR.get(picture.color_trc)


def _matrix(picture: VideoFrame) -> int | None:
    """The matrix from YCbCr: what the file says; where it is silent, BT.709 for HD and BT.601 below, as players do."""
    if picture.colorspace != _UNSAID:
        return None
    return Colorspace.ITU709 if picture.height >= 720 else Colorspace.ITU601
