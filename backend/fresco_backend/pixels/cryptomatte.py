# SPDX-License-Identifier: Apache-2.0
"""Objects of a Cryptomatte by their names or ids (Cryptomatte specification 1.2.0, Friedman and Jones).

Ranks lie in pairs of channels: an id, which is a hash of the object's name seen as a float, and how much of the pixel
it covers. Ids are compared bit for bit, so they must not have been resized, blended or stored as half.
"""
from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import OpenImageIO as oiio  # noqa: N813, the name in its own manual

from fresco_backend.files.frames import FloatArray

_KEY = re.compile(r"cryptomatte/([^/]+)/(name|manifest)")
_MASK = 0xFFFFFFFF
_ID = re.compile(r"0x[0-9a-fA-F]{8}")
_NUMBER = re.compile(r"<([^<>]+)>")  # as Nuke's Cryptomatte lists what has no name


def coverage(channels: Mapping[str, FloatArray], spec: oiio.ImageSpec, name: str) -> FloatArray | None:
    """How much of each pixel an object covers, (H, W) in [0, 1]; None when no Cryptomatte of the file has it.

    name: of the object, as the manifest or the renderer has it, in its own case; "layer/object" when two layers do. An
    id stands for an object that has no name: "0x3f80aa01", or in angle brackets the number that it is in the pixels.
    """
    layer, mark, rest = name.partition("/")
    for found, key in _layers(spec).items():
        wanted = rest if mark and layer == found else name
        covered = _covered(channels, found, _identity(wanted, _manifest(spec, key)))
        if covered is not None:
            return covered
    return None


def objects(spec: oiio.ImageSpec) -> list[str]:
    """The names in the manifests of all layers, in their order; empty when the file carries none."""
    return [name for key in _layers(spec).values() for name in _manifest(spec, key)]


def _layers(spec: oiio.ImageSpec) -> dict[str, str]:
    """Name of each layer -> the key of its metadata."""
    found = (_KEY.fullmatch(attribute.name) for attribute in spec.extra_attribs)
    keys = [match[1] for match in found if match and match[2] == "name"]
    return {spec.get_string_attribute(f"cryptomatte/{key}/name"): key for key in keys}


def _manifest(spec: oiio.ImageSpec, key: str) -> dict[str, str]:
    """Object -> id in hexadecimal; empty where the renderer wrote none, because names hash to their ids anyhow."""
    try:
        found = json.loads(spec.get_string_attribute(f"cryptomatte/{key}/manifest") or "{}")
    except ValueError:
        return {}
    items = found.items() if isinstance(found, dict) else ()
    return {name: value for name, value in items if re.fullmatch(r"[0-9a-fA-F]{8}", str(value))}


def _identity(wanted: str, manifest: Mapping[str, str]) -> int:
    """The 32 bits of an object: its entry in the manifest, an id that is written out, else the hash of its name."""
    if wanted in manifest:
        return int(manifest[wanted], 16)
    if _ID.fullmatch(wanted):
        return int(wanted, 16)
    if number := _NUMBER.fullmatch(wanted):
        with suppress(ValueError, OverflowError):
            bits: int = struct.unpack("<I", struct.pack("<f", float(number[1])))[0]
            return bits
    return _name_hash(wanted)


def _covered(channels: Mapping[str, FloatArray], layer: str, identity: int) -> FloatArray | None:
    """The sum over ranks; None when no pixel has the id."""
    wanted = struct.unpack("<f", struct.pack("<I", identity))[0]
    total: FloatArray | None = None
    for ids, shares in _ranks(channels, layer):
        hit = ids == np.float32(wanted)
        if hit.any():
            part = np.where(hit, shares, np.float32(0))
            total = part if total is None else total + part
    return total


def _ranks(channels: Mapping[str, FloatArray], layer: str) -> list[tuple[FloatArray, FloatArray]]:
    """Pairs of ids and coverages: "layer00.R", ".G", ".B", ".A", "layer01.R" and so on."""
    found: dict[tuple[int, int], FloatArray] = {}
    for name, samples in channels.items():
        match = re.fullmatch(re.escape(layer) + r"(\d\d)\.(red|green|blue|alpha|[rgba])", name, re.IGNORECASE)
        if match:
            found[int(match[1]), "rgba".index(match[2][0].lower())] = samples
    numbers = sorted({number for number, _ in found})
    places = [(number, place) for number in numbers for place in (0, 2)]
    return [(found[at], found[at[0], at[1] + 1]) for at in places if at in found and (at[0], at[1] + 1) in found]


def _name_hash(name: str) -> int:
    """MurmurHash3 x86 32, seed 0, with exponents that would be NaN, infinite or denormal avoided as specified."""
    value = _murmur3(name.encode("utf-8"))
    exponent = value >> 23 & 255
    return value ^ 1 << 23 if exponent in (0, 255) else value


def _murmur3(data: bytes) -> int:
    """MurmurHash3 x86 32 of Austin Appleby (public domain), seed 0."""
    value = 0
    for (block,) in struct.iter_unpack("<I", data[: len(data) // 4 * 4]):
        value = (_rotated(value ^ _scrambled(block), 13) * 5 + 0xE6546B64) & _MASK
    value ^= _scrambled(int.from_bytes(data[len(data) // 4 * 4 :], "little")) ^ len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        value = ((value ^ value >> shift) * factor) & _MASK
    return value ^ value >> 16


def _scrambled(block: int) -> int:
    return _rotated(block * 0xCC9E2D51 & _MASK, 15) * 0x1B873593 & _MASK


def _rotated(value: int, bits: int) -> int:
    return (value << bits | value >> 32 - bits) & _MASK
