# SPDX-License-Identifier: Apache-2.0
"""What a delivered file holds: its samples and its header, made of the plate's."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import numpy as np
import OpenImageIO as oiio  # noqa: N813, the name in its own manual
import torch
from numpy.typing import NDArray

from fresco_backend.files.canvas import cut
from fresco_backend.files.frames import CHROMATICITIES, HALF_MAX, JOB_HASH, FloatArray, Frame, Part, cleaned, passed_on
from fresco_protocol.errors import OutputPattern
from fresco_protocol.shot import BitDepth

Samples = FloatArray | NDArray[np.float16]

STRIP = 64  # rows of a frame that several passes go over while they are in the processor's cache
SUBIMAGE = "oiio:subimagename"
_PRIMARIES = "chromaticities"
_LOSSY = ("dwaa", "dwab", "b44", "b44a")  # coded once more, what was kept of the plate would change
_PROJECT = 199  # characters of DPX's name of a project (SMPTE ST 268)
_SHORT = "pxr24"  # cuts floats to 24 bits: an id becomes another id


class Stored(NamedTuple):
    """Samples of a file, (H, W, channels). replaced: how many were made finite. clamped: brought into halves' range."""

    samples: Samples
    replaced: int
    clamped: int


def storable(frame: Frame, depth: BitDepth, room: Samples | None = None) -> Stored:
    """All channels as the header orders them; colour and alpha finite and within the format.

    Halves where the file holds nothing else, which takes OpenImageIO five times as long to make; else float32.
    room: samples that are written over where they fit; fresh memory would cost more than the conversion.
    """
    colour = [frame.pixels] if frame.alpha is None else [frame.pixels, frame.alpha[..., None]]
    own = sum(group.shape[2] for group in colour)
    halves = depth is BitDepth.HALF and all(extra.format is BitDepth.HALF for extra in frame.extra)
    shape, kind = (*frame.pixels.shape[:2], own + len(frame.extra)), np.float16 if halves else np.float32
    whole: Samples = room if room is not None and room.shape == shape and room.dtype == kind else np.empty(shape, kind)
    replaced = clamped = 0
    for top in range(0, len(whole), STRIP):
        rows = slice(top, top + STRIP)
        groups = []
        for samples in colour:
            finite, broken = cleaned(samples[rows])
            replaced += broken
            if depth is BitDepth.HALF and max(finite.max(), -finite.min()) > HALF_MAX:
                clamped += int(np.count_nonzero(np.abs(finite) > HALF_MAX))
                finite = np.clip(finite, -HALF_MAX, HALF_MAX)
            groups.append(finite)
        _fill(whole[rows], groups + [extra.samples[rows, :, None] for extra in frame.extra])
        for place, extra in enumerate(frame.extra, own):
            if halves:
                _keep_what_is_no_number(whole[rows, :, place], extra.samples[rows])
    return Stored(whole, replaced, clamped)


def _fill(target: Samples, groups: Sequence[FloatArray]) -> None:
    """Write channels side by side, as floats or as halves."""
    side, place = np.ascontiguousarray(groups[0], np.float32), 0
    if len(groups) > 1:
        side = np.empty(target.shape, np.float32)
        for channel in chain.from_iterable(np.moveaxis(group, 2, 0) for group in groups):
            side[..., place] = channel  # one by one, which is three times as fast as groups of three
            place += 1
    torch.from_numpy(target).copy_(torch.from_numpy(side))


def _keep_what_is_no_number(stored: Samples, samples: FloatArray) -> None:
    """Give halves that are NaN the bits that they had as floats: processors change some, and ids may be such."""
    odd = np.isnan(samples)
    if odd.any():
        bits = samples[odd].view(np.uint32) >> 13
        stored[odd] = ((bits >> 3 & 0x8000) | (bits & 0x7FFF)).astype(np.uint16).view(np.float16)


def fitted(frame: Frame, type_name: str) -> Frame:
    """The frame in the window of its file, without an opaque alpha where none can be stored.

    Raises OutputPattern when a channel would be lost.
    """
    frame = cut(frame, type_name)
    parts = [part.metadata.get_string_attribute(SUBIMAGE) or "of another part" for part in frame.parts]
    lost = [extra.name for extra in frame.extra] + parts if type_name != "openexr" else []
    if type_name == "jpeg" and frame.alpha is not None and not np.all(frame.alpha == 1):
        lost.append(frame.alpha_name)
    if lost:
        raise OutputPattern(f"{type_name} cannot store the plate's channels {', '.join(lost)}", where=type_name,
                            remedy="Deliver EXR, which keeps every channel of the plate.")
    return replace(frame, alpha=None) if type_name == "jpeg" else frame


def part_header(part: Part, picture: oiio.ImageSpec) -> oiio.ImageSpec:
    """The header of a part that passes through, beside that of the picture."""
    spec = passed_on(part.metadata, same_file_type=True)
    _keep_every_bit(spec)
    spec[SUBIMAGE] = part.metadata.get_string_attribute(SUBIMAGE)
    if spec.getattribute(_PRIMARIES) is not None:  # which OpenEXR refuses to write where parts state others
        _state_primaries(spec, picture.getattribute(_PRIMARIES))
    return spec


def header(frame: Frame, type_name: str, depth: BitDepth, compression: str | None, job_hash: str, *,
           ordered: bool = False) -> oiio.ImageSpec:
    """The header of the picture: the plate's, with what this delivery decides. Raises OutputPattern.

    ordered: somebody asked for this depth; else it is the plate's, of which a file of 16 bits may use 10 or 12.
    """
    same = frame.file_type == type_name
    spec = passed_on(frame.metadata, same_file_type=same, declared=frame.declared)
    if type_name == "openexr" and frame.declared in CHROMATICITIES:  # without them readers take Rec. 709
        _state_primaries(spec, CHROMATICITIES[frame.declared])
    if ordered or depth is not frame.format:
        spec.erase_attribute("oiio:BitsPerSample")
    if frame.parts:
        spec[SUBIMAGE] = frame.metadata.get_string_attribute(SUBIMAGE) or "picture"
    alpha = () if frame.alpha is None else (frame.alpha_name,)
    spec.channelnames = (*frame.channels, *alpha, *(extra.name for extra in frame.extra))
    spec.nchannels = len(spec.channelnames)
    spec.set_format(depth.value)
    spec.channelformats = ()
    spec.alpha_channel = len(frame.channels) if alpha else -1
    if any(extra.format is not depth for extra in frame.extra):
        colours = spec.nchannels - len(frame.extra)
        formats = [depth] * colours + [_stored(extra.format, type_name) for extra in frame.extra]
        spec.channelformats = tuple(oiio.TypeDesc(stored.value) for stored in formats)
    spec["oiio:UnassociatedAlpha"] = int(not frame.associated)
    if (compression or "").startswith(_SHORT) and any(extra.format is BitDepth.FLOAT for extra in frame.extra):
        raise OutputPattern(f"{_SHORT} would cut the 32-bit channels of the plate, ids among them", where=type_name,
                            remedy="Choose zip or piz, which keep every bit.")
    _choose_compression(spec, type_name, compression, same)
    if type_name == "dpx":
        _orient_scan(spec)
    _sign(spec, type_name, job_hash)
    return spec


def _state_primaries(spec: oiio.ImageSpec, primaries: tuple[float, ...] | None) -> None:
    spec.erase_attribute(_PRIMARIES)
    if primaries is not None:
        spec.attribute(_PRIMARIES, oiio.TypeDesc("float[8]"), primaries)


def _orient_scan(spec: oiio.ImageSpec) -> None:
    """OpenImageIO 3.2 reads the orientations of DPX by SMPTE ST 268 and writes them by Exif's numbers less one: of two
    pairs each stands for the other. Those that exchange width and height it writes so that they are another picture.
    """
    stated = spec.get_int_attribute("Orientation", 1)
    if stated in (3, 4):
        spec["Orientation"] = 7 - stated
    elif stated > 4:
        spec.erase_attribute("Orientation")


def _stored(kind: BitDepth, type_name: str) -> BitDepth:
    """EXR has no short integers, as TIFF has: floats hold their values."""
    return BitDepth.FLOAT if type_name == "openexr" and kind is not BitDepth.HALF else kind


def _choose_compression(spec: oiio.ImageSpec, type_name: str, compression: str | None, same: bool) -> None:
    if type_name == "openexr":
        _keep_every_bit(spec)
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


def _keep_every_bit(spec: oiio.ImageSpec) -> None:
    if spec.get_string_attribute("compression").partition(":")[0] in _LOSSY:
        spec["compression"] = "zip"


def _sign(spec: oiio.ImageSpec, type_name: str, job_hash: str) -> None:
    """Embed the hash; TIFF, JPEG and DPX have no attributes of one's own, so there it is appended to a text field."""
    if type_name in ("openexr", "png"):
        spec[JOB_HASH] = job_hash
        return
    field = "DocumentName" if type_name == "dpx" else "ImageDescription"
    before = spec.get_string_attribute(field).partition(f"{JOB_HASH}=")[0].rstrip()
    mark = f" {JOB_HASH}={job_hash}"
    if type_name == "dpx":
        before = before[: _PROJECT - len(mark)]
    spec[field] = f"{before}{mark}".lstrip()
