# SPDX-License-Identifier: Apache-2.0
"""Names of image sequences: patterns with a place for the frame number, frame ranges, types that are delivered, the
record beside, what is said where none is there. Light: the server reads them too."""
from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import fileseq

from fresco_protocol.errors import OutputPattern, PlateMissing, UsageError
from fresco_protocol.shot import FrameRange, frame_numbers, parse_frames

FRAME_FIELD = re.compile(r"[._-]?(#+|@+|%\d*d|\$F\d*)")
"""Where the frame number stands in a name, with the mark that parts it from what comes before."""

PICTURES = {".exr": "openexr", ".png": "png", ".tif": "tiff", ".tiff": "tiff", ".dpx": "dpx", ".jpg": "jpeg",
            ".jpeg": "jpeg"}
"""Pictures that Fresco delivers, by extension: OpenImageIO's name of the file type."""
MOVIES = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov"}
"""Movies that it delivers: the container."""


def frames_text(numbers: Iterable[int]) -> str:
    """Frame numbers in the compact notation of a shot document: "1003-1005,1010"."""
    return str(fileseq.framesToFrameRange(sorted(numbers)))


@dataclass(frozen=True, kw_only=True)
class FramePattern:
    """A path with a place for the frame number, or a path to one single file.

    padding: the least number of digits, or None for a single file. frames: the range that the pattern itself named
    ("x.1001-1048####.exr"); for a single file, the number in its name, or 1. text: as it was written, for messages.
    """

    text: str
    folder: Path
    prefix: str
    suffix: str
    padding: int | None
    frames: tuple[int, ...]

    @classmethod
    def parse(cls, text: str | Path) -> FramePattern:
        """The pattern in `name.%04d.exr`, `name.####.exr`, `name.@@@@.exr` or `name.$F4.exr`. Raises UsageError.

        A name that exists as it stands is that one file. Only the name is a pattern: a folder may be called anything.
        """
        folder, name = Path(text).parent, Path(text).name
        if Path(text).is_file() or not FRAME_FIELD.search(name):
            return cls(text=str(text), folder=folder, prefix=name, suffix="", padding=None, frames=(_number_of(name),))
        try:
            sequence = fileseq.FileSequence(name, pad_style=fileseq.PAD_STYLE_HASH1)
            frames = _frames_of(sequence)
        except (fileseq.FileSeqException, UsageError) as error:
            raise UsageError(f"'{name}' is no pattern of a sequence", where=text,
                             remedy="Put the frame number directly before the extension: name.####.exr") from error
        if not sequence.padding():  # a name with more marks than one, or with words behind them: the last are meant
            field = list(FRAME_FIELD.finditer(name))[-1]
            return cls(text=str(text), folder=folder, prefix=name[: field.start(1)], suffix=name[field.end(1) :],
                       padding=digits_of(field[1]), frames=())
        return cls(text=str(text), folder=folder, prefix=sequence.basename(), suffix=sequence.extension(),
                   padding=sequence.zfill(), frames=frames)

    def path(self, number: int) -> Path:
        """The file of one frame; a negative number is padded as printf and fileseq do: -005."""
        if self.padding is None:
            return self.folder / self.prefix
        return self.folder / f"{self.prefix}{str(number).zfill(self.padding)}{self.suffix}"

    def on_disk(self) -> dict[int, Path]:
        """The frames that exist, by number, ascending. Unfinished files (`.part`) and other paddings do not count."""
        if self.padding is None:
            return {self.frames[0]: self.path(0)} if self.path(0).is_file() else {}
        return {number: path for number, path in self._alike() if path == self.path(number)}

    def any_on_disk(self, ranges: Sequence[FrameRange] | None = None) -> int | None:
        """The number of a frame that exists, whichever is met first; None where none does.

        ranges: only frames in these count; None is all. A single file counts whatever they are.
        """
        if self.padding is None:
            return self.frames[0] if self.path(0).is_file() else None
        names = self._names
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            match = names.fullmatch(path.name)
            if match is not None and path.name == self.path(number := int(match[1])).name and (
                    ranges is None or any(number in frames.numbers() for frames in ranges)):
                return number
        return None

    def with_other_paddings(self) -> dict[int, list[int]]:
        """Frames of the same name whose number has another count of digits: {padding: frames}."""
        others: dict[int, list[int]] = {}
        for number, path in self._alike() if self.padding is not None else ():
            if path != self.path(number):
                digits = len(path.name) - len(self.prefix) - len(self.suffix)
                others.setdefault(digits, []).append(number)
        return others

    def has(self, name: str) -> bool:
        """Whether a file of this name is one of its frames, on whatever disk."""
        return name == self.prefix if self.padding is None else self._names.fullmatch(name) is not None

    @property
    def _names(self) -> re.Pattern[str]:
        return re.compile(re.escape(self.prefix) + r"(-?\d+)" + re.escape(self.suffix))

    def _alike(self) -> list[tuple[int, Path]]:
        names = self._names
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted((int(match[1]), path) for path in paths if (match := names.fullmatch(path.name)))

    def __str__(self) -> str:
        return self.text


def is_movie_delivery(path: str | Path) -> bool:
    """Whether a path asks for a movie that Fresco writes: .mp4, .m4v or .mov."""
    return Path(path).suffix.lower() in MOVIES


def file_type(path: str | Path) -> str:
    """OpenImageIO's name of the file type of delivered pictures, by the extension. Raises OutputPattern."""
    extension = Path(path).suffix.lower()
    if not extension:  # a folder, as a rule
        raise OutputPattern("the delivery's path names no file type", where=path,
                            remedy=f"Name files in it, as in {Path(path).name}/look.####.exr or "
                                   f"{Path(path).name}/look.mov")
    if extension not in PICTURES:
        raise OutputPattern(f"'{extension}' is no file type that Fresco writes", where=path,
                            remedy=f"Choose one of {', '.join(PICTURES)}, or of a movie {', '.join(MOVIES)}")
    return PICTURES[extension]


def plate_missing(pattern: FramePattern) -> PlateMissing:
    """What is said of a plate of which no file is there: why, and what was probably meant."""
    if not pattern.folder.is_dir():
        return PlateMissing("the folder of the plate does not exist", where=pattern, remedy="Check the path.")
    if pattern.padding is None and pattern.path(0).is_dir():
        return PlateMissing("the plate is a folder", where=pattern,
                            remedy="Name the frames in it, as in plate.####.exr, or the movie.")
    return PlateMissing("no file of the plate was found", where=pattern,
                        remedy=other_paddings(pattern)
                        or f"{_near(pattern)}Check the name, the padding and the extension.")


def _near(pattern: FramePattern) -> str:
    """The name in its folder that was probably meant."""
    there = [f"{found.basename()}{found.padding()}{found.extension()}" for found in
             fileseq.findSequencesOnDisk(str(pattern.folder), pad_style=fileseq.PAD_STYLE_HASH1)]
    near = difflib.get_close_matches(Path(pattern.text).name, there, n=1)
    return f"Did you mean {near[0]}? " if near else ""


def other_paddings(pattern: FramePattern) -> str:
    """What to say when the frames exist under another padding, as they do when two writers shared a folder."""
    others = [f"{pattern.prefix}{digits * '#'}{pattern.suffix} ({frames_text(numbers)})"
              for digits, numbers in sorted(pattern.with_other_paddings().items())]
    return f"The folder also has {', '.join(others)}: rename to one padding, or name that pattern." if others else ""


def digits_of(mark: str) -> int:
    """The least number of digits that a mark stands for: 4 of "####", "%04d", "@@@@" and "$F4"."""
    return int(fileseq.FileSequence.getPaddingNum(mark, pad_style=fileseq.PAD_STYLE_HASH1))


def _frames_of(sequence: fileseq.FileSequence) -> tuple[int, ...]:
    text = sequence.frameRange()
    return tuple(sorted(frame_numbers(parse_frames(text)))) if text else ()


def _number_of(name: str) -> int:
    """The frame number in the name of one file ("still.1001.exr"), or 1."""
    try:
        frames = _frames_of(fileseq.FileSequence(name, pad_style=fileseq.PAD_STYLE_HASH1))
    except (fileseq.FileSeqException, UsageError):
        return 1
    return frames[0] if len(frames) == 1 else 1


def record_path(delivery: str | Path) -> Path:
    """The record of a delivery: "out/look.####.exr" -> "out/look.exr.fresco.json", beside that of "out/look.mov"."""
    path = Path(delivery)
    return path.with_name(f"{FRAME_FIELD.sub('', path.stem)}{path.suffix}.fresco.json")
