"""Plain values as JSON, between a process that runs a model's program and the process that judges what it returns.

    encode([1, (2.5, "x")])  ==  ["list", [1, ["tuple", [2.5, "x"]]]]

What comes out of `decode` is of Python's own types, exactly: nothing of the program's classes crosses, so no `__eq__`
of theirs is ever asked. A value of another kind stays where it is, and the other side gets a handle: a number.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import json
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

DEPTH = 64
"""Deepest nesting. More is no value, but a handle."""

MESSAGE = 4 << 20
"""Longest message in bytes."""

_DIGITS = 4000
"""Longer integers cross in hexadecimal, which takes linear time to read."""

Wrap = Callable[[Any], Any]

_FROM_TEXT: Mapping[str, Callable[[str], Any]] = {
    "int": lambda text: int(text, 16),
    "float": float.fromhex,
    "bytes": bytes.fromhex,
    "complex": complex,
    "Decimal": decimal.Decimal,
    "Fraction": fractions.Fraction,
    "date": datetime.date.fromisoformat,
    "datetime": datetime.datetime.fromisoformat,
    "time": datetime.time.fromisoformat,
}
_TO_TEXT: Mapping[type, tuple[str, Callable[[Any], str]]] = {
    bytes: ("bytes", bytes.hex),
    bytearray: ("bytes", bytearray.hex),
    complex: ("complex", str),
    decimal.Decimal: ("Decimal", str),
    fractions.Fraction: ("Fraction", str),
    datetime.date: ("date", datetime.date.isoformat),
    datetime.datetime: ("datetime", datetime.datetime.isoformat),
    datetime.time: ("time", datetime.time.isoformat),
}
_FROM_ITEMS: Mapping[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
    "range": lambda items: range(*items),
    "timedelta": lambda items: datetime.timedelta(*items),
}
_KINDS = (list, tuple, set, frozenset, deque, dict, str, int, float)
"""A value of a subclass crosses as one of these: a named tuple as a tuple, a Counter as a dict."""


PLAIN = frozenset([*_KINDS, *_TO_TEXT, range, datetime.timedelta])
"""Whose values cross, unless they are nested too deeply."""


def encode(value: Any, handle: Wrap, depth: int = 0) -> Any:
    """The value as JSON's own types. What is no plain value is given to `handle`, and that stands in its place."""
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if depth > DEPTH:
        return handle(value)
    if kind is int:
        return value if abs(value) < 1 << 63 else ["int", hex(value)]
    if kind is float:
        return value if math.isfinite(value) else ["float", value.hex()]
    if kind in _TO_TEXT:
        name, text = _TO_TEXT[kind]
        return [name, text(value)]
    return _composed(value, kind, handle, depth)


def _composed(value: Any, kind: type, handle: Wrap, depth: int) -> Any:
    if kind is range:
        return ["range", [encode(each, handle, depth + 1) for each in (value.start, value.stop, value.step)]]
    if kind is datetime.timedelta:
        return ["timedelta", [value.days, value.seconds, value.microseconds]]
    if kind is dict:
        items = [[encode(k, handle, depth + 1), encode(v, handle, depth + 1)] for k, v in value.items()]
        return ["dict", items]
    if kind in _KINDS:
        return [kind.__name__, [encode(each, handle, depth + 1) for each in value]]
    for base in _KINDS:
        if isinstance(value, base):
            plain: Any = base
            return encode(plain(value), handle, depth + 1)
    if kind.__module__ == "numpy":
        return encode(value.item(), handle, depth + 1) if value.shape == () else handle(value)
    return handle(value)


def decode(wired: Any, handle: Wrap, depth: int = 0) -> Any:
    """The value again; ValueError for anything that `encode` would not have written."""
    if wired is None or isinstance(wired, bool | str | int | float):
        return wired
    if depth > DEPTH + 2 or not isinstance(wired, list) or len(wired) != 2 or not isinstance(wired[0], str):
        raise ValueError("not a wired value")
    name, content = wired
    if name == "handle":
        return handle(content)
    if name in _FROM_TEXT and isinstance(content, str):
        if name in ("Decimal", "Fraction", "complex") and len(content) > _DIGITS:
            raise ValueError("a number of too many digits")
        try:
            return _FROM_TEXT[name](content)
        except (ArithmeticError, OverflowError) as error:
            raise ValueError(f"no {name}: {error}") from error
    if not isinstance(content, list):
        raise ValueError("not a wired value")
    try:
        if name == "dict":
            return {decode(k, handle, depth + 1): decode(v, handle, depth + 1) for k, v in content}
        return _FROM_ITEMS[name]([decode(each, handle, depth + 1) for each in content])
    except (KeyError, TypeError, OverflowError) as error:  # a name that is none, a list as a key, a range of texts
        raise ValueError(f"not a wired value: {error}") from error


def line_of(message: Any) -> bytes:
    """A message as one line of JSON."""
    return json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def message_of(line: bytes) -> Any:
    """The message in a line; ValueError if there is none."""
    try:
        return json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
