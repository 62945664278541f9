# SPDX-License-Identifier: Apache-2.0
"""Which channels of an image file are the picture, where layers, parts and views could be meant.

A layer is what stands before the last dot of a channel's name. A part has a name of its own. Views are those of a
stereo plate: an attribute of a part tells its own, or where all lie in one part, one of them lists their names, which
channels bear as a layer or at its end; the first one's may lack it (OpenEXR, "Storing Multi-View Images").
"""
from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import OpenImageIO as oiio  # noqa: N813, the name in its own manual

from fresco_backend.files.image_files import unreadable
from fresco_protocol.errors import InputError


class Picture(NamedTuple):
    """A picture in a file.

    place: of its part. colour: its channels there, three, or one of a grey picture. alpha: its alpha there, or None.
    layer, part, view: their names, empty where the file gives none. subject: the layer without the view, in lower case.
    """

    place: int
    colour: tuple[int, ...]
    alpha: int | None
    layer: str
    part: str
    view: str
    subject: str

    @property
    def name(self) -> str:
        """What tells it from the others of its file."""
        return self.part or self.layer or self.view or "R, G, B"


def pictures(headers: Sequence[oiio.ImageSpec]) -> list[Picture]:
    """Every picture of a file by the headers of its parts, in their order; ids hold none, integers or Cryptomattes."""
    ids = re.compile("|".join([r"crypto\w*\d\d", *(re.escape(name) + r"(\d\d)?" for name in _cryptomattes(headers))]))
    found = [picture for place, header in enumerate(headers) if header.format.basetype != oiio.UINT
             for picture in _of_part(header, place)]
    return [one for one in found if not any(
        ids.fullmatch(name) or ids.fullmatch(name.rpartition(".")[2])
        for name in (one.layer.lower(), one.part.lower().removesuffix(f"-{one.view.lower()}")))]


def picture(headers: Sequence[oiio.ImageSpec], layer: str | None, path: Path) -> Picture:
    """The picture that is meant, by the headers of the file's parts.

    layer: a layer, a part or a view by its name, in any case, or the end of a layer's name. Without one it is R, G and
    B of no layer, else the only layer, else the one that Blender calls Combined; of views and of parts alike the first.
    Raises FrameUnreadable where the file has no colour; InputError where it lacks the layer, or several could be meant.
    """
    found = pictures(headers)
    if not found:
        raise unreadable(path, f"it has no colour, only {', '.join(headers[0].channelnames)}")
    named = _called(found, layer) if layer else found
    if not named:
        raise InputError(f"the plate has no layer '{layer}'", where=path, remedy=f"Choose one of {_listed(found)}")
    meant = ([one for one in named if not one.subject]
             or [one for one in named if one.subject.split(".")[-1] == "combined"] or named)
    if len({one.subject for one in meant}) > 1:
        raise InputError(f"several layers hold colour: {_listed(meant)}", where=path,
                         remedy=f"Name the one to stylise, for example --layer {meant[0].name}")
    return min(meant, key=lambda one: (one.place, one.layer != ""))


def alike(headers: Sequence[oiio.ImageSpec], place: int, channels: Sequence[str]) -> tuple[str, ...]:
    """The names of a picture and of those that could as well have been meant: other views of it, and other parts with
    channels of the same names. Views by theirs, where that tells them apart; the one alone, if there is no other.

    place: of its part. channels: its colour's, by their names there.
    """
    found = pictures(headers)
    own = next(one for one in found
               if one.place == place and [headers[place].channelnames[index] for index in one.colour] == list(channels))
    group = [own, *(one for one in found if one is not own and one.subject == own.subject)]
    views = tuple(dict.fromkeys(one.view for one in group if one.view))
    return views if len(views) == len(group) else tuple(one.name for one in group)


def _cryptomattes(headers: Sequence[oiio.ImageSpec]) -> list[str]:
    """The names of a file's Cryptomattes, in lower case; see `pixels.cryptomatte`."""
    return [str(found.value).lower() for header in headers for found in header.extra_attribs
            if re.fullmatch("cryptomatte/[^/]+/name", found.name)]


def _of_part(header: oiio.ImageSpec, place: int) -> Iterator[Picture]:
    index = {name.lower(): number for number, name in enumerate(header.channelnames)}
    part, view = header.get_string_attribute("oiio:subimagename"), header.get_string_attribute("view")
    layers = [name[:-1] for name in index if name.endswith("r") and (name == "r" or name[-2] == ".")
              and {name[:-1] + "g", name[:-1] + "b"} <= index.keys()]
    for prefix in layers:
        layer = header.channelnames[index[prefix + "r"]][:-2]
        yield Picture(place, tuple(index[prefix + letter] for letter in "rgb"), index.get(prefix + "a"), layer, part,
                      *_seen(layer, view, header))
    if not layers and "y" in index:
        yield Picture(place, (index["y"],), index.get("a"), "", part, *_seen("", view, header))


def _seen(layer: str, view: str, header: oiio.ImageSpec) -> tuple[str, str]:
    """The view of a layer, and the layer without it, in lower case. view: of the part, if that tells."""
    listed = header.getattribute("multiView")
    views = [str(name) for name in listed] if isinstance(listed, (tuple, list)) else []
    subject, _, last = layer.lower().rpartition(".")
    named = next((name for name in views if name.lower() == last), "")
    if view or not named:
        return view or (views[0] if views and not layer else ""), layer.lower()
    return named, subject


def _called(found: Sequence[Picture], name: str) -> list[Picture]:
    """Those of exactly this name, else those whose layer ends in it."""
    wanted = name.lower()
    return ([one for one in found if wanted in (one.layer.lower(), one.part.lower(), one.view.lower())]
            or [one for one in found if one.layer.lower().endswith(f".{wanted}")])


def _listed(found: Sequence[Picture]) -> str:
    return ", ".join(dict.fromkeys(one.name for one in found))
