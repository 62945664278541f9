# SPDX-License-Identifier: Apache-2.0
"""Writing frames so that a file with its final name is always whole, finite, and the one that was asked for."""
from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import OpenImageIO as oiio  # noqa: N813, the name in its own manual

from fresco_backend.files.file_content import Samples, fitted, header, part_header, storable
from fresco_backend.files.frame_pattern import file_type
from fresco_backend.files.frames import (
    FloatArray,
    Frame,
    Part,
    Size,
    Window,
    data_window,
    embedded_job_hash,
)
from fresco_backend.files.image_files import decoded
from fresco_backend.files.sequences import FramePattern
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
_ATTEMPTS = 5  # to prove a folder that others may remove
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
        self._room: Samples | None = None  # the samples of the last frame, for those of the next
        self._depth(like)
        refuse_sources([self.pattern.path(number) for number in numbers], sources)
        self._prove(like)

    def path(self, number: int) -> Path:
        """The final file of one frame."""
        return self.pattern.path(number)

    def is_delivered(self, number: int, job_hash: str) -> bool:
        """Whether the file of this frame is there, decodes as a whole, and was made by the very same job."""
        path = self.path(number)
        try:
            return path.is_file() and job_hash in map(embedded_job_hash, decoded(path))
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
        frame = fitted(frame, self.file_type)
        samples, replaced, clamped = storable(frame, depth, self._room)
        self._room = samples
        spec = header(frame, self.file_type, depth, self.encoding.compression, job_hash,
                      ordered=self.encoding.bit_depth is not None)
        parts: list[tuple[oiio.ImageSpec, Any]] = [(part_header(part, spec), part.samples) for part in frame.parts]
        parts.insert(frame.place, (spec, samples))
        try:
            if self.file_type == "jpeg":  # libjpeg ends the process when the disk is full
                _ask_for_room(part, spec)
            _encode(part, self.file_type, spec, parts)
            self._verify(part, parts, frame.place, job_hash)
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
                                remedy=f"Choose {' or '.join(depth.value for depth in possible)}, or another file "
                                       "type.")
        return wanted

    def _verify(self, part: Path, written: Sequence[tuple[oiio.ImageSpec, Any]], place: int, job_hash: str) -> None:
        """Decode the file once more: on a full disk close() may be True, and unknown codecs are replaced silently.

        place: of the picture among the parts that were written.
        """
        spec = written[place][0]
        try:
            found = decoded(part)
        except InputError as error:
            raise _why_not(part, spec, error.what) from error
        if len(found) != len(written) or embedded_job_hash(found[place]) != job_hash or any(
                self._facts(one) != self._facts(other) for one, (other, _) in zip(found, written, strict=True)):
            raise _why_not(part, spec, "the file does not read back as it was written")
        wanted = self.encoding.compression  # JPEG has one codec, which OpenImageIO does not name when it reads
        compression = "jpeg" if self.file_type == "jpeg" else found[place].get_string_attribute("compression")
        if wanted is not None and wanted.partition(":")[0] != compression:
            raise OutputPattern(f"{self.file_type} has no compression '{wanted}'", where=self.pattern,
                                remedy="Leave it out to follow the plate, or for EXR choose zip, zips, piz or dwaa.")

    def _facts(self, spec: oiio.ImageSpec) -> tuple[Window, dict[str, str]]:
        """Where the samples of a part lie, and how each channel is stored."""
        return self._window(spec), {name: str(spec.channelformat(number))
                                    for number, name in enumerate(spec.channelnames)}

    def _window(self, spec: oiio.ImageSpec) -> Window:
        """The data window, as far as the file type has one."""
        return data_window(spec) if self.file_type == "openexr" else Window(0, 0, spec.width, spec.height)

    def _prove(self, like: Frame) -> None:
        """Make the folder and write a small picture into it; once more where the folder is gone meanwhile.

        The pictures of a movie lie in scratch, which another process removes when it has finished the movie.
        """
        for attempt in range(_ATTEMPTS):
            try:
                make_writable(self.pattern.folder)
                self._sweep()
                self._probe(like)
            except (DiskFull, OutputPattern):
                raise
            except OutputError:  # which says in many ways that a folder is gone
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    def _probe(self, like: Frame) -> None:
        name = f".fresco-probe.{secrets.token_hex(4)}{self.pattern.path(0).suffix}"
        like = replace(like, own=None)
        alpha = None if like.alpha is None else _corner(like.alpha)
        extra = tuple(replace(channel, samples=_corner(channel.samples)) for channel in like.extra)
        parts = tuple(Part(metadata=_corner_header(part.metadata, like.size), samples=part.samples[:8, :8])
                      for part in like.parts)
        small = replace(like, pixels=_corner(like.pixels), alpha=alpha, extra=extra, parts=parts,
                        metadata=_corner_header(like.metadata, like.size))
        self._write(self.pattern.folder / name, small, "0").path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what dead processes left of this delivery, by age: a process id says nothing about another machine."""
        for part in self.pattern.folder.glob(".*.part"):
            if part.name.startswith(f".{self.pattern.prefix}"):
                with suppress(OSError):  # another process finished it just now, or it is another user's
                    if time.time() - part.stat().st_mtime > _STALE:
                        part.unlink()


def part_of(path: Path) -> Path:
    """A name for a file that is not whole yet: hidden, beside it, and no other process's, on whatever machine."""
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")


def _corner_header(metadata: oiio.ImageSpec, size: Size) -> oiio.ImageSpec:
    """The header of the first 8x8 pixels. size: of the picture, whose display window all parts share."""
    spec = oiio.ImageSpec(metadata)
    spec.x = spec.y = spec.full_x = spec.full_y = 0
    spec.width, spec.height = min(8, spec.width), min(8, spec.height)
    spec.full_width, spec.full_height = min(8, size.width), min(8, size.height)
    return spec


def _corner(samples: FloatArray) -> FloatArray:
    return samples[:8, :8]


def refuse_sources(outputs: Iterable[Path], sources: Iterable[Path]) -> None:
    """Raise OutputIsPlate when an output is one of the sources, whatever the path or the link that leads there."""
    taken = {source.resolve() for source in sources}
    identities = {_identity(source) for source in taken}
    for output in outputs:
        if output.resolve() in taken or (output.exists() and _identity(output) in identities):
            raise OutputIsPlate("this delivery would overwrite its own source", where=output,
                                remedy="Choose another folder or name; Fresco never writes over a plate.")


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _pattern(path: str | Path, numbers: Sequence[int]) -> FramePattern:
    try:
        pattern = FramePattern.parse(path)
    except UsageError as error:
        raise OutputPattern(error.what, where=path, remedy=error.remedy) from error
    except OSError as error:  # a folder that may not be searched
        raise refused(Path(path), error) from error
    if pattern.padding is None and len(numbers) > 1:
        name = Path(path)
        raise OutputPattern(f"{len(numbers)} frames would be written to one file", where=path,
                            remedy=f"Add a frame field, for example {name.stem}.####{name.suffix}")
    return pattern


def make_writable(folder: Path) -> None:
    """Make a folder and prove by a small file that it can be written. Raises OutputDenied, DiskFull."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = part_of(folder / "fresco-probe")
        try:
            probe.write_bytes(b"fresco")
        finally:
            probe.unlink(missing_ok=True)  # on a full disk its name fits, and its words do not
    except OSError as error:
        if folder.is_dir() or error.errno in _FULL:
            raise refused(folder, error) from error
        raise _no_folder(folder, error) from error


@contextmanager
def folders_as_before(path: str | Path) -> Iterator[None]:
    """Folders that are made meanwhile on the way to a delivery go again, unless something lies in them by then."""
    missing = [folder for folder in Path(path).parents if not folder.exists()]
    try:
        yield
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def _no_folder(folder: Path, error: OSError) -> OutputDenied:
    """Why a folder could not be made: what is there of the way to it, and what stands in it."""
    there = next((parent for parent in (folder, *folder.parents) if parent.exists() or parent.is_symlink()), folder)
    if there.is_dir():
        remedy = f"Only {there} is there: make the folder, or choose one that you may write."
    else:
        remedy = f"{there} is no folder: choose another one."
    return OutputDenied(f"the folder of the delivery cannot be made: {error.strerror or error}", where=folder,
                        remedy=remedy)


def refused(path: Path, error: OSError) -> OutputError:
    """DiskFull or OutputDenied for an error of the operating system while `path` was written."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return DiskFull(f"the disk is full: {reason}", where=path,
                        remedy="Make room and run the same command again; delivered frames are kept.")
    return OutputDenied(f"the delivery cannot be written: {reason}", where=path,
                        remedy="Choose a folder that you may write, or change its permissions.")


def _why_not(part: Path, spec: oiio.ImageSpec, reason: str) -> OutputError:
    """The true cause of a failed write. OpenImageIO does not tell it, so the disk is asked again for as many bytes."""
    try:
        _ask_for_room(part, spec)
    except OSError as error:
        return refused(part, error)
    return OutputError(f"the file could not be written: {reason}", where=part,
                       remedy="Try another type or compression.")


def _ask_for_room(part: Path, spec: oiio.ImageSpec) -> None:
    """Write as many bytes as the picture has at most; raises what the operating system says."""
    with part.open("wb") as file:
        for _ in range(spec.image_bytes() // 2**16 + 1):
            file.write(os.urandom(2**16))  # zeros would fit on a file system that compresses
        file.flush()
        os.fsync(file.fileno())


def _encode(part: Path, type_name: str, spec: oiio.ImageSpec, parts: Sequence[tuple[oiio.ImageSpec, Any]]) -> None:
    """Write one file of one part or several. spec: of the picture.

    Return values, close() and geterror() are all asked: each of them misses some failures.
    """
    image = oiio.ImageOutput.create(type_name)
    if image is None:
        raise OutputPattern(f"this build of OpenImageIO cannot write {type_name}", where=part)
    good = image.open(str(part), spec) if len(parts) == 1 else image.open(str(part), [each for each, _ in parts])
    for place, (each, samples) in enumerate(parts):
        good = good and (place == 0 or image.open(str(part), each, "AppendSubimage")) and image.write_image(samples)
    good = image.close() and good
    reason = image.geterror()
    if not good or reason not in ("", _NO_FAILURE):
        raise _why_not(part, spec, " ".join(reason.split()) or "no reason was given")


def _sync(part: Path) -> None:
    with part.open("rb+") as file:
        os.fsync(file.fileno())
