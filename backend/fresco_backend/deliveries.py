# SPDX-License-Identifier: Apache-2.0
"""Writing frames so that a file with its final name is always whole, finite, and the one that was asked for."""
from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import OpenImageIO as oiio  # noqa: N813, the name in its own manual

from fresco_backend.frames import (
    HALF_MAX,
    JOB_HASH,
    FloatArray,
    Frame,
    cleaned,
    embedded_job_hash,
    passed_on,
    read_frame,
)
from fresco_backend.sequences import FramePattern
from fresco_protocol.errors import (
    DiskFull,
    InputError,
    OutputDenied,
    OutputError,
    OutputIsPlate,
    OutputPattern,
    UsageError,
)
from fresco_protocol.shot import BitDepth

_STALE = 24 * 3600.0  # seconds; a frame that takes longer than a day to write was left by a dead process
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# OpenImageIO 3.2 leaves this error behind for every TIFF without Exif data; the file is whole (it is read back).
_NO_FAILURE = "failed TIFFWriteCustomDirectory() of the Exif data"

# What each file type can hold, the preferred one for a plate of another type first.
_DEPTHS = {
    "openexr": (BitDepth.HALF, BitDepth.FLOAT),
    "png": (BitDepth.UINT16, BitDepth.UINT8),
    "tiff": (BitDepth.UINT16, BitDepth.UINT8, BitDepth.FLOAT),
    "dpx": (BitDepth.UINT16, BitDepth.UINT8),
    "jpeg": (BitDepth.UINT8,),
}
FILE_TYPES = {".exr": "openexr", ".png": "png", ".tif": "tiff", ".tiff": "tiff", ".dpx": "dpx", ".jpg": "jpeg",
              ".jpeg": "jpeg"}


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How delivered files store pixels; None follows the plate, as far as the file type can.

    compression: a name of OpenImageIO such as "zip" or "dwaa:45". Lossy ones also change what was kept of a plate.
    """

    bit_depth: BitDepth | None = None
    compression: str | None = None


class Written(NamedTuple):
    """A delivered file. replaced: NaN and infinite samples made finite. clamped: samples beyond the range of half."""

    path: Path
    replaced: int
    clamped: int


class DeliveryWriter:
    """Writes the frames of one delivery.

    Each file carries the hash of the job that made it, is read back before it gets its name, and gets it by a rename:
    killed at any moment, the process leaves whole files and at most one hidden `.name….part`.
    """

    def __init__(self, path: str | Path, numbers: Sequence[int], *, like: Frame, sources: Iterable[Path] = (),
                 encoding: Encoding = Encoding()) -> None:
        """Check the delivery before anything is rendered, by writing and reading back one small picture in its folder.

        path: pattern with a frame field, or one file for one frame. like: a frame of the plate, for what it decides.
        sources: files that must not be written: those of the plate, the matte, the controls.
        Raises OutputPattern, OutputIsPlate, OutputDenied, DiskFull.
        """
        self.pattern = _pattern(path, numbers)
        self.file_type = file_type(path)
        self.encoding = encoding
        self._depth(like)
        refuse_sources([self.pattern.path(number) for number in numbers], sources)
        make_writable(self.pattern.folder)
        self._sweep()
        self._probe(like)

    def path(self, number: int) -> Path:
        """The final file of one frame."""
        return self.pattern.path(number)

    def is_delivered(self, number: int, job_hash: str) -> bool:
        """Whether the file of this frame is there, decodes as a whole, and was made by the very same job."""
        path = self.path(number)
        try:
            return path.is_file() and embedded_job_hash(read_frame(path).metadata) == job_hash
        except InputError:
            return False

    def write(self, number: int, frame: Frame, job_hash: str) -> Written:
        """Deliver one frame. job_hash: hexadecimal identity of everything that the frame depends on.

        Raises DiskFull, OutputDenied; then neither a torn file nor a `.part` is left.
        """
        return self._write(self.path(number), frame, job_hash)

    def _write(self, path: Path, frame: Frame, job_hash: str) -> Written:
        part = part_of(path)
        depth = self._depth(frame)
        frame = _without_lost_channels(frame, self.file_type)
        samples, replaced, clamped = _storable(frame, depth)
        spec = _header(frame, self.file_type, depth, self.encoding.compression, job_hash)
        try:
            if self.file_type == "jpeg":  # libjpeg ends the process when the disk is full
                _ask_for_room(part, spec)
            _encode(part, self.file_type, spec, samples)
            self._verify(part, spec, depth, job_hash)
            _sync(part)
            part.replace(path)
        except OSError as error:
            raise refused(path, error) from error
        finally:
            with suppress(OSError):
                part.unlink()
        return Written(path, replaced, clamped)

    def _depth(self, frame: Frame) -> BitDepth:
        possible = _DEPTHS[self.file_type]
        wanted = self.encoding.bit_depth
        if wanted is None:
            return frame.format if frame.format in possible else possible[0]
        if wanted not in possible:
            raise OutputPattern(f"{self.file_type} cannot store {wanted.value} samples", where=self.pattern,
                                remedy=f"Choose {' or '.join(depth.value for depth in possible)}, or another file type")
        return wanted

    def _verify(self, part: Path, spec: oiio.ImageSpec, depth: BitDepth, job_hash: str) -> None:
        """Decode the file once more: on a full disk close() may be True, and unknown codecs are replaced silently."""
        try:
            found = read_frame(part)
        except InputError as error:
            raise _why_not(part, spec, error.what) from error
        read_back = (found.size, found.format, embedded_job_hash(found.metadata), set(found.metadata.channelnames))
        if read_back != ((spec.width, spec.height), depth, job_hash, set(spec.channelnames)):
            raise _why_not(part, spec, "the file does not read back as it was written")
        wanted, compression = self.encoding.compression, found.metadata.get_string_attribute("compression")
        if wanted is not None and wanted.partition(":")[0] != compression:
            raise OutputPattern(f"{self.file_type} has no compression '{wanted}'", where=self.pattern,
                                remedy="Leave it out to follow the plate, or for EXR choose zip, zips, piz or dwaa")

    def _probe(self, like: Frame) -> None:
        name = f".fresco-probe.{secrets.token_hex(4)}{self.pattern.path(0).suffix}"
        spec = oiio.ImageSpec(like.metadata)
        spec.width, spec.height = min(8, spec.width), min(8, spec.height)
        alpha = None if like.alpha is None else _corner(like.alpha)
        extra = tuple(replace(channel, samples=_corner(channel.samples)) for channel in like.extra)
        small = replace(like, pixels=_corner(like.pixels), alpha=alpha, extra=extra, metadata=spec)
        self._write(self.pattern.folder / name, small, "0").path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what dead processes left of this delivery, by age: a process id says nothing about another machine."""
        for part in self.pattern.folder.glob(".*.part"):
            mine = part.name.startswith(f".{self.pattern.prefix}")
            if mine and time.time() - part.stat().st_mtime > _STALE:
                part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """A name for a file that is not whole yet: hidden, beside it, and no other process's, on whatever machine."""
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")


def _corner(samples: FloatArray) -> FloatArray:
    return samples[:8, :8]


def file_type(path: str | Path) -> str:
    """OpenImageIO's name of the file type of a delivery, by the extension. Raises OutputPattern."""
    extension = Path(path).suffix.lower()
    if extension not in FILE_TYPES:
        raise OutputPattern(f"'{extension}' is no file type that Fresco writes", where=path,
                            remedy=f"Choose one of {', '.join(FILE_TYPES)}")
    return FILE_TYPES[extension]


def refuse_sources(outputs: Iterable[Path], sources: Iterable[Path]) -> None:
    """Raise OutputIsPlate when an output is one of the sources, whatever the path or the link that leads there."""
    taken = {source.resolve() for source in sources}
    identities = {_identity(source) for source in taken}
    for output in outputs:
        if output.resolve() in taken or (output.exists() and _identity(output) in identities):
            raise OutputIsPlate("this delivery would overwrite its own source", where=output,
                                remedy="Choose another folder or name; Fresco never writes over a plate")


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _pattern(path: str | Path, numbers: Sequence[int]) -> FramePattern:
    try:
        pattern = FramePattern.parse(path)
    except UsageError as error:
        raise OutputPattern(error.what, where=path, remedy=error.remedy) from error
    if pattern.padding is None and len(numbers) > 1:
        name = Path(path)
        raise OutputPattern(f"{len(numbers)} frames would be written to one file", where=path,
                            remedy=f"Add a frame field, for example {name.stem}.%04d{name.suffix}")
    return pattern


def make_writable(folder: Path) -> None:
    """Make a folder and prove by a small file that it can be written. Raises OutputDenied, DiskFull."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = part_of(folder / "fresco-probe")
        probe.write_bytes(b"fresco")
        probe.unlink()
    except OSError as error:
        raise refused(folder, error) from error


def refused(path: Path, error: OSError) -> OutputError:
    """DiskFull or OutputDenied for an error of the operating system while `path` was written."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return DiskFull(f"the disk is full: {reason}", where=path,
                        remedy="Make room and run the same command again; delivered frames are kept")
    return OutputDenied(f"the delivery cannot be written: {reason}", where=path,
                        remedy="Choose a folder that you may write, or change its permissions")


def _why_not(part: Path, spec: oiio.ImageSpec, reason: str) -> OutputError:
    """The true cause of a failed write. OpenImageIO does not tell it, so the disk is asked again for as many bytes."""
    try:
        _ask_for_room(part, spec)
    except OSError as error:
        return refused(part, error)
    return OutputError(f"the file could not be written: {reason}", where=part, remedy="Try another type or compression")


def _ask_for_room(part: Path, spec: oiio.ImageSpec) -> None:
    """Write as many bytes as the picture has at most; raises what the operating system says."""
    with part.open("wb") as file:
        for _ in range(spec.image_bytes() // 2**16 + 1):
            file.write(os.urandom(2**16))  # zeros would fit on a file system that compresses
        file.flush()
        os.fsync(file.fileno())


def _encode(part: Path, type_name: str, spec: oiio.ImageSpec, samples: FloatArray) -> None:
    """Write one file. Return values, close() and geterror() are all asked: each of them misses some failures."""
    image = oiio.ImageOutput.create(type_name)
    if image is None:
        raise OutputPattern(f"this build of OpenImageIO cannot write {type_name}", where=part)
    good = image.open(str(part), spec)
    good = good and image.write_image(samples)
    good = image.close() and good
    reason = image.geterror()
    if not good or reason not in ("", _NO_FAILURE):
        raise _why_not(part, spec, " ".join(reason.split()) or "no reason was given")


def _sync(part: Path) -> None:
    with part.open("rb+") as file:
        os.fsync(file.fileno())


def _storable(frame: Frame, depth: BitDepth) -> tuple[FloatArray, int, int]:
    """All channels as the header orders them, (H, W, channels); colour and alpha finite and within the format."""
    colour = frame.pixels if frame.alpha is None else np.concatenate([frame.pixels, frame.alpha[..., None]], axis=2)
    colour, replaced = cleaned(colour)
    clamped = 0
    if depth is BitDepth.HALF:
        clamped = int(np.count_nonzero(np.abs(colour) > HALF_MAX))
        colour = np.clip(colour, -HALF_MAX, HALF_MAX) if clamped else colour
    planes = [colour, *(extra.samples[..., None] for extra in frame.extra)]
    return np.ascontiguousarray(np.concatenate(planes, axis=2), np.float32), replaced, clamped


def _without_lost_channels(frame: Frame, type_name: str) -> Frame:
    """The frame without an opaque alpha where none can be stored. Raises OutputPattern when a channel would be lost."""
    lost = [extra.name for extra in frame.extra] if type_name != "openexr" else []
    if type_name == "jpeg" and frame.alpha is not None and not np.all(frame.alpha == 1):
        lost.append(frame.alpha_name)
    if lost:
        raise OutputPattern(f"{type_name} cannot store the plate's channels {', '.join(lost)}", where=type_name,
                            remedy="Deliver EXR, which keeps every channel of the plate")
    return replace(frame, alpha=None) if type_name == "jpeg" else frame


def _header(frame: Frame, type_name: str, depth: BitDepth, compression: str | None, job_hash: str) -> oiio.ImageSpec:
    same = frame.file_type == type_name
    spec = passed_on(frame.metadata, same_file_type=same)
    alpha = () if frame.alpha is None else (frame.alpha_name,)
    spec.channelnames = (*frame.channels, *alpha, *(extra.name for extra in frame.extra))
    spec.nchannels = len(spec.channelnames)
    spec.set_format(depth.value)
    spec.channelformats = ()
    spec.alpha_channel = len(frame.channels) if alpha else -1
    if any(extra.format is not depth for extra in frame.extra):
        colours = spec.nchannels - len(frame.extra)
        formats = [depth] * colours + [extra.format for extra in frame.extra]
        spec.channelformats = tuple(oiio.TypeDesc(stored.value) for stored in formats)
    spec["oiio:UnassociatedAlpha"] = int(not frame.associated)
    _choose_compression(spec, type_name, compression, same)
    _sign(spec, type_name, job_hash)
    return spec


def _choose_compression(spec: oiio.ImageSpec, type_name: str, compression: str | None, same: bool) -> None:
    if compression is not None:
        spec["compression"] = compression
    elif type_name == "jpeg":
        spec["compression"] = "jpeg:95"
        spec["jpeg:subsampling"] = "4:4:4"
    elif not same and type_name in ("openexr", "tiff"):
        spec["compression"] = "zip"
    if type_name == "png":  # a seventh of the default's time for files of the same size
        spec["png:compressionLevel"] = 1
        spec["png:filter"] = 16


def _sign(spec: oiio.ImageSpec, type_name: str, job_hash: str) -> None:
    """Embed the hash; TIFF, JPEG and DPX have no attributes of one's own, so there it is appended to a text field."""
    if type_name in ("openexr", "png"):
        spec[JOB_HASH] = job_hash
        return
    field = "DocumentName" if type_name == "dpx" else "ImageDescription"
    before = spec.get_string_attribute(field).partition(f"{JOB_HASH}=")[0].rstrip()
    spec[field] = f"{before} {JOB_HASH}={job_hash}".lstrip()
