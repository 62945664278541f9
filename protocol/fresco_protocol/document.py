# SPDX-License-Identifier: Apache-2.0
"""Nouns and their JSON documents: one strict reader and one writer, both driven by the fields of the dataclasses.

A type tells all that a value must be: `Annotated[float, within(0, 1)]` is checked on construction in Python and on
reading alike, and is what an error quotes as allowed. Errors carry a path relative to the noun; who holds it adds `at`.
"""
from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Annotated, Any, NamedTuple, NoReturn, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from fresco_protocol.errors import ShotError

if sys.version_info >= (3, 11):
    from typing import dataclass_transform
else:
    def dataclass_transform(**_: object) -> Callable[[Any], Any]:
        return lambda function: function

T = TypeVar("T")

_origin: Callable[[Any], Any] = functools.lru_cache(maxsize=None)(get_origin)
UNIONS = (Union,) if sys.version_info < (3, 10) else (Union, type(int | str))  # Optional[X], and X | None

PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


class Rule(NamedTuple):
    """A condition on the values of an Annotated type; `text` continues a sentence such as "a number …"."""

    text: str
    holds: Callable[[Any], bool]


def within(lowest: float, highest: float) -> Rule:
    """The rule that a number lies in [lowest, highest]."""
    return Rule(f"from {lowest} to {highest}", lambda value: lowest <= value <= highest)


FILLED = Rule("that is not empty", lambda value: bool(value.strip() if isinstance(value, str) else value))


class Written:
    """A noun that documents spell as one text, such as "24000/1001"; a tuple of them is separated by commas."""

    allowed: str  # continues "allowed: …" with an example

    @classmethod
    def parse(cls: type[T], text: str) -> T:
        """The noun of its text; ShotError if the text is not one."""
        raise NotImplementedError


@dataclass_transform(kw_only_default=True, frozen_default=True)
def noun(kind: type[T]) -> type[T]:
    """Makes a class a frozen dataclass that takes keywords only and checks each value against its field's type.

    Rules over several fields stand in `__post_init__`, which runs after these checks.
    Not `dataclass(kw_only=True)`: that came with Python 3.10, and hosts still run 3.9.
    """
    made = dataclass(frozen=True)(kind)
    construct = made.__init__

    @functools.wraps(construct)
    def checked(self: T, **values: object) -> None:
        hints = _hints(cast(Any, made))
        for name in [name for name in values if name in hints]:  # a wrong name is left to the constructor's TypeError
            try:  # not `at`, for lists of jobs have thousands of fields
                values[name] = admit(values[name], hints[name])
            except ShotError as error:
                raise error.inside(name) from None
        construct(self, **values)

    made.__init__ = checked  # type: ignore[method-assign,assignment]
    return made


@contextmanager
def at(place: str) -> Iterator[None]:
    """Puts `place` before the path of every ShotError from inside."""
    try:
        yield
    except ShotError as error:
        raise error.inside(place) from None


def admit(value: object, hint: Any, declared: Any = None) -> object:
    """`value` if its type and rules are those of `hint` (a whole number becomes a float where one is due).

    declared: the whole type that `hint` is a part of, for the error.
    """
    declared, origin = declared or hint, _origin(hint)
    if origin is Annotated:
        kind, *rules = get_args(hint)
        value = admit(value, kind, declared)
        return value if all(rule.holds(value) for rule in rules) else _refuse(value, declared)
    if origin in UNIONS:
        return None if value is None else admit(value, _present(hint), declared)
    if origin is tuple:
        return _admit_items(value, get_args(hint)[0]) if isinstance(value, tuple) else _refuse(value, declared)
    if hint is float and type(value) is int and abs(value) < 2**53:  # beyond, a float would be another number
        return float(value)
    fits = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    finite = not isinstance(value, float) or math.isfinite(value)
    return value if fits and finite else _refuse(value, declared)


def _admit_items(values: tuple[object, ...], kind: Any) -> tuple[object, ...]:
    admitted = []
    for index, value in enumerate(values):
        with at(f"[{index}]"):
            admitted.append(admit(value, kind))
    return tuple(admitted)


def parse_list(kind: type[T], text: str) -> tuple[T, ...]:
    """The Written nouns of a text that separates them by commas."""
    return tuple(cast(Any, kind).parse(part.strip()) for part in text.split(","))


def read(found: object, hint: Any, declared: Any = None) -> Any:
    """The value of type `hint` that a parsed JSON value stands for; ShotError names the place, else.

    Numbers, texts and truth values pass as they are: the noun that receives them checks them.
    """
    declared, origin = declared or hint, _origin(hint)
    if origin is Annotated:
        return read(found, get_args(hint)[0], declared)
    if origin in UNIONS:
        return None if found is None else read(found, _present(hint), declared)
    if origin is tuple:
        return _read_items(found, get_args(hint)[0], declared)
    if issubclass(hint, Enum):
        return hint(found) if found in [member.value for member in hint] else _refuse(found, declared)
    if issubclass(hint, Written):
        return hint.parse(found) if isinstance(found, str) else _refuse(found, declared)
    if is_dataclass(hint):
        return _read_noun(found, hint) if isinstance(found, dict) else _refuse(found, declared)
    return found


def _read_items(found: object, kind: Any, declared: Any) -> tuple[object, ...]:
    if isinstance(kind, type) and issubclass(kind, Written):
        return parse_list(kind, found) if isinstance(found, str) else _refuse(found, declared)
    if not isinstance(found, list):
        _refuse(found, declared)
    values = []
    for index, item in enumerate(found):
        with at(f"[{index}]"):
            values.append(read(item, kind))
    return tuple(values)


def _read_noun(found: dict[str, object], kind: Any) -> object:
    hints = _hints(kind)
    for key in found:
        if key not in hints:
            raise ShotError(key, "an unknown key", _known(key, list(hints)))
    values = {}
    for field in fields(kind):
        with at(field.name):
            if field.name in found:
                values[field.name] = read(found[field.name], hints[field.name])
            elif _required(field):
                raise ShotError("", "nothing", describe(hints[field.name]))
    return kind(**values)


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _known(key: str, names: list[str]) -> str:
    nearest = get_close_matches(key, names, n=1)
    return (f'"{nearest[0]}"? All keys: ' if nearest else "") + ", ".join(names)


def write(value: object) -> Any:
    """The JSON value (dict, list, text, number, truth value or None) of a noun or of a field of one."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Written):
        return str(value)
    if isinstance(value, tuple):
        return ",".join(map(str, value)) if value and isinstance(value[0], Written) else [write(item) for item in value]
    if is_dataclass(value):
        return {field.name: write(getattr(value, field.name)) for field in fields(value)}
    return value


def parse_json(text: str) -> dict[str, Any]:
    """The one JSON object of a text; refuses a key that stands twice."""
    try:
        found = json.loads(text, object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise ShotError("", f"no JSON: {error}", "one JSON object") from None
    return found if isinstance(found, dict) else _refuse(found, dict)


def _no_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    seen: dict[str, object] = {}
    for key, value in pairs:
        if key in seen:
            raise ShotError(key, "a key that stands twice", "each key once")
        seen[key] = value
    return seen


def describe(hint: Any) -> str:
    """What a type allows, in words: "a number from 0 to 1 or null"."""
    origin = get_origin(hint)
    if origin is Annotated:
        return " ".join([describe(get_args(hint)[0])] + [rule.text for rule in get_args(hint)[1:]])
    if origin in UNIONS:
        return f"{describe(_present(hint))} or null"
    if origin is tuple:
        kind = get_args(hint)[0]
        return ("" if isinstance(kind, type) and issubclass(kind, Written) else "a list of: ") + describe(kind)
    if issubclass(hint, Enum):
        return " or ".join(f'"{member.value}"' for member in hint)
    if issubclass(hint, Written):
        return str(hint.allowed)
    return PLAIN.get(hint, "an object" + (f" with {', '.join(_hints(cast(Any, hint)))}" if is_dataclass(hint) else ""))


def _refuse(found: object, hint: Any) -> NoReturn:
    raise ShotError("", _shown(found), describe(hint))


def _shown(found: object) -> str:
    if isinstance(found, (dict, list)):
        return "an object" if isinstance(found, dict) else "a list"
    text = json.dumps(found, default=repr, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


@functools.lru_cache(maxsize=None)
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


def _present(hint: Any) -> Any:
    """X of Optional[X]."""
    return next(kind for kind in get_args(hint) if kind is not type(None))
