# SPDX-License-Identifier: Apache-2.0
"""Nouns and their JSON documents: one strict reader and one writer, both driven by the fields of the dataclasses.

A type tells all that a value must be: `Annotated[float, within(0, 1)]` is checked on construction in Python and on
reading alike, and is what an error quotes as allowed. Errors carry a path relative to the noun; who holds it adds the
place. What a type asks for is worked out once: lists of jobs have thousands of values.
"""
from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Callable
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
Turn = Callable[[Any], Any]  # what becomes of one value

UNIONS = (Union,) if sys.version_info < (3, 10) else (Union, type(int | str))  # Optional[X], and X | None

_AS_THEY_ARE = frozenset({str, int, float, bool, type(None)})  # in JSON
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
        gates = _gates(cast(Any, made))
        name = ""
        try:  # not `at`, for lists of jobs have thousands of fields
            for name, value in values.items():
                if name in gates:  # a wrong name is left to the constructor's TypeError
                    values[name] = gates[name](value)
        except ShotError as error:
            raise error.inside(name) from None
        construct(self, **values)

    made.__init__ = checked  # type: ignore[method-assign,assignment]
    return made


def admit(value: object, hint: Any) -> object:
    """`value` if its type and rules are those of `hint` (a whole number becomes a float where one is due)."""
    return _gate(hint, hint)(value)


@functools.lru_cache(maxsize=None)
def _gate(hint: Any, declared: Any) -> Turn:
    """What admits values of a type. declared: the whole type that `hint` is a part of, for the error."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _ruled_gate(hint, declared)
    if origin in UNIONS:
        inner = _gate(_present(hint), declared)
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        item = _gate(get_args(hint)[0], get_args(hint)[0])
        return lambda value: _each(value, item) if isinstance(value, tuple) else _refuse(value, declared)
    if hint is float:
        return lambda value: _float(value, declared)

    def gate(value: object) -> object:
        fits = type(value) is hint or (isinstance(value, hint) and not isinstance(value, bool))
        return value if fits else _refuse(value, declared)

    return gate


def _ruled_gate(hint: Any, declared: Any) -> Turn:
    kind, *rules = get_args(hint)
    inner, conditions = _gate(kind, declared), tuple(rule.holds for rule in rules)

    def gate(value: object) -> object:
        value = inner(value)
        for holds in conditions:
            if not holds(value):
                _refuse(value, declared)
        return value

    return gate


def _float(value: object, declared: Any) -> float:
    if type(value) is int and abs(value) < 2**53:  # beyond, a float would be another number
        return float(value)
    return value if isinstance(value, float) and math.isfinite(value) else _refuse(value, declared)


def _each(values: Any, turn: Turn) -> tuple[object, ...]:
    """What becomes of each value; an error tells its index."""
    found: list[object] = []
    try:
        for value in values:
            found.append(turn(value))
    except ShotError as error:
        raise error.inside(f"[{len(found)}]") from None
    return tuple(found)


def parse_list(kind: type[T], text: str) -> tuple[T, ...]:
    """The Written nouns of a text that separates them by commas."""
    return tuple(cast(Any, kind).parse(part.strip()) for part in text.split(","))


def read(found: object, hint: Any) -> Any:
    """The value of type `hint` that a parsed JSON value stands for; ShotError names the place, else.

    Numbers, texts and truth values pass as they are: the noun that receives them checks them.
    """
    return _reader(hint, hint)(found)


@functools.lru_cache(maxsize=None)
def _reader(hint: Any, declared: Any) -> Turn:
    """What reads values of a type. declared: the whole type that `hint` is a part of, for the error."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _reader(get_args(hint)[0], declared)
    if origin in UNIONS:
        inner = _reader(_present(hint), declared)
        return lambda found: None if found is None else inner(found)
    if origin is tuple:
        return _items_reader(get_args(hint)[0], declared)
    if issubclass(hint, Enum):
        members = {member.value: member for member in hint}
        return lambda found: members[found] if isinstance(found, str) and found in members else _refuse(found, declared)
    if issubclass(hint, Written):
        return lambda found: hint.parse(found) if isinstance(found, str) else _refuse(found, declared)
    if is_dataclass(hint):
        return lambda found: _read_noun(found, hint) if isinstance(found, dict) else _refuse(found, declared)
    return lambda found: found


def _items_reader(kind: Any, declared: Any) -> Turn:
    if isinstance(kind, type) and issubclass(kind, Written):
        return lambda found: parse_list(kind, found) if isinstance(found, str) else _refuse(found, declared)
    item = _reader(kind, kind)
    return lambda found: _each(found, item) if isinstance(found, list) else _refuse(found, declared)


class _Field(NamedTuple):
    """A field of a noun, as documents have it."""

    name: str
    read: Turn
    required: bool
    allowed: Any


@functools.lru_cache(maxsize=None)
def _fields(kind: Any) -> tuple[_Field, ...]:
    hints = _hints(kind)
    return tuple(_Field(field.name, _reader(hints[field.name], hints[field.name]), _required(field), hints[field.name])
                 for field in fields(kind))


def _read_noun(found: dict[str, object], kind: Any) -> object:
    names = _hints(kind)
    for key in found:
        if key not in names:
            raise ShotError(key, "an unknown key", _known(key, list(names)))
    values = {}
    for field in _fields(kind):
        if field.name in found:
            try:
                values[field.name] = field.read(found[field.name])
            except ShotError as error:
                raise error.inside(field.name) from None
        elif field.required:
            raise ShotError("", "nothing", describe(field.allowed)).inside(field.name)
    return kind(**values)


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _known(key: str, names: list[str]) -> str:
    nearest = get_close_matches(key, names, n=1)
    return (f'"{nearest[0]}"? All keys: ' if nearest else "") + ", ".join(names)


def write(value: object) -> Any:
    """The JSON value (dict, list, text, number, truth value or None) of a noun or of a field of one."""
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if isinstance(value, tuple):
        return ",".join(map(str, value)) if value and isinstance(value[0], Written) else [write(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Written):
        return str(value)
    if is_dataclass(kind):
        return {name: write(getattr(value, name)) for name in _hints(kind)}
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
def _gates(kind: Any) -> dict[str, Turn]:
    return {name: _gate(hint, hint) for name, hint in _hints(kind).items()}


@functools.lru_cache(maxsize=None)
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


def _present(hint: Any) -> Any:
    """X of Optional[X]."""
    return next(kind for kind in get_args(hint) if kind is not type(None))
