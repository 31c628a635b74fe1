"""Values and keys as TOML text: for the resolved recipe, and for what error messages show.

toml_value([1e-6, True, "a\\nb"])  ->  '[1e-06, true, "a\\nb"]'
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, time
from typing import Any, cast

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def toml_key(key: str) -> str:
    """The key as it is, or in quotes where it needs them."""
    return key if _BARE_KEY.fullmatch(key) else _quoted(key)


def toml_value(value: object) -> str:
    """One line of TOML for anything that TOML can hold; raises TypeError for anything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    # The base class writes the number: a numpy float is a float too, but its own repr is no TOML.
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, (date, time)):
        return _moment(value)
    return _container(value)


def shown(value: object, width: int = 80) -> str:
    """The value as an error message shows it: TOML where it is TOML, on one line, and not longer than `width`."""
    try:
        text = toml_value(value)
    except TypeError:
        text = " ".join(repr(value).split())
    return text if len(text) <= width else text[: width - 3] + "..."


def _quoted(text: str) -> str:
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise TypeError("TOML holds no half characters (lone surrogates)")
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _moment(value: date | time) -> str:
    if isinstance(value, time) and value.tzinfo is not None:
        raise TypeError("TOML has no time of day with a time zone")
    return value.isoformat()


def _container(value: object) -> str:
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, Any]", value).items()
        return "{" + ", ".join(f"{toml_key(key)} = {toml_value(item)}" for key, item in pairs) + "}"
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return "[" + ", ".join(map(toml_value, cast("Sequence[Any]", value))) + "]"
    raise TypeError(f"TOML has no {type(value).__name__}")
