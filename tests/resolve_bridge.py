# SPDX-License-Identifier: Apache-2.0
"""The bridge of the double of DaVinci Resolve: strict where the real one is nasty.

An attribute that a release does not have is None (`hasattr` is true for anything, `dir` is right); a call that does not
fit the documented parameters does nothing; failures are falsy, never exceptions; an open dialog swallows every call.
Whatever a careful client would not have done is recorded in `violations`. A documented method that nobody modelled
raises NotModelled: nothing passes by accident.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

API: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "resolve_api.json").read_text(encoding="utf-8"))
MARKER_COLORS = frozenset({"Blue", "Cyan", "Green", "Yellow", "Red", "Pink", "Purple", "Fuchsia", "Rose", "Lavender",
                           "Sky", "Mint", "Lemon", "Sand", "Cocoa", "Cream"})
CLIP_COLORS = frozenset({"Orange", "Apricot", "Yellow", "Lime", "Olive", "Green", "Teal", "Navy", "Blue", "Purple",
                         "Violet", "Pink", "Tan", "Beige", "Brown", "Chocolate"})


class NotModelled(Exception):  # noqa: N818, what the test author reads
    """The client called a method that the double does not model yet."""


def release(text: str) -> tuple[int, ...]:
    """(19, 1) of "19.1"."""
    return tuple(int(part) for part in text.split("."))


class Ledger:
    """What a client did. modal: a dialog is open. gone: Resolve has quit. on_call: happens before each call."""

    def __init__(self, version: tuple[int, ...]) -> None:
        self.version = version
        self.modal = self.gone = False
        self.calls: list[tuple[str, str, tuple[Any, ...]]] = []
        self.violations: list[str] = []
        self.on_call: Callable[[str], None] | None = None

    def violate(self, what: str) -> None:
        """Records what a careful client would not have done."""
        self.violations.append(what)


class Remote:
    """An object behind the bridge. A method that the double models is `do_` and its name."""

    kind = ""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def methods(self) -> dict[str, Any]:
        """The documented methods that this release has."""
        return {name: overloads for name, overloads in API["classes"].get(self.kind, {}).items()
                if release(overloads[0]["since"]) <= self.ledger.version}

    def __dir__(self) -> list[str]:
        return sorted(self.methods())

    def __getattr__(self, name: str) -> Any:
        if not name[:1].isupper():
            raise AttributeError(name)
        if self.ledger.gone:
            return None
        if name.isupper() or name.startswith("EXPORT_"):
            return name  # the constants of Resolve
        if name not in self.methods():
            self.ledger.violate(f"{self.kind}.{name} ({self._why(name)})")
            return None
        return lambda *values, **named: self._call(name, values, named)

    def _why(self, name: str) -> str:
        if name in API["deprecated"].get(self.kind, ()):
            return "deprecated"
        known = API["classes"].get(self.kind, {}).get(name)
        return f"needs {known[0]['since']}" if known else "no such method"

    def _call(self, name: str, values: tuple[Any, ...], named: dict[str, Any]) -> Any:
        ledger = self.ledger
        if ledger.gone:
            return None
        ledger.calls.append((self.kind, name, values))
        if ledger.on_call is not None:
            ledger.on_call(name)
        if ledger.modal:
            return False
        if named:
            ledger.violate(f"{self.kind}.{name} takes no keywords")
            return None
        if not any(_fits(overload, values) for overload in self.methods()[name]):
            ledger.violate(f"{self.kind}.{name} does not take {values!r}")
            return None
        model = getattr(type(self), f"do_{name}", None)
        if model is None:
            raise NotModelled(f"{self.kind}.{name}")
        return model(self, *values)


def _fits(overload: dict[str, Any], values: Sequence[Any]) -> bool:
    parameters = overload["parameters"]
    least = 1 if overload["variadic"] else sum(not optional for _, _, optional in parameters)
    if len(values) < least or (len(values) > len(parameters) and not overload["variadic"]):
        return False
    kinds: dict[str, tuple[type, ...]] = {"list": (list, tuple), "dict": (dict,)}
    return all(isinstance(value, kinds.get(kind, (object,)))
               for (_, kind, _), value in zip(parameters, values, strict=False))


class Marked(Remote):
    """An object with markers, a colour and an id."""

    def __init__(self, ledger: Ledger, id: str) -> None:
        super().__init__(ledger)
        self.id = id
        self.markers: dict[float, dict[str, Any]] = {}
        self.color = ""

    def do_GetUniqueId(self) -> str:  # noqa: N802, Resolve's names
        return self.id

    def do_AddMarker(self, frame: int, color: str, name: str, note: str, duration: int, data: str = "") -> bool:  # noqa: N802
        if color not in MARKER_COLORS or float(frame) in self.markers:
            return False
        self.markers[float(frame)] = {"color": color, "duration": float(duration), "note": note, "name": name,
                                      "customData": data}
        return True

    def do_GetMarkers(self) -> dict[float, dict[str, Any]]:  # noqa: N802
        return {frame: dict(marker) for frame, marker in self.markers.items()}

    def do_DeleteMarkerAtFrame(self, frame: float) -> bool:  # noqa: N802
        return self.markers.pop(float(frame), None) is not None

    def do_SetClipColor(self, color: str) -> bool:  # noqa: N802
        if color not in CLIP_COLORS:
            return False
        self.color = color
        return True

    def do_GetClipColor(self) -> str:  # noqa: N802
        return self.color
