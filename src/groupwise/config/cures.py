"""What to write instead of a wrong value. One small rule for each common slip; the first that knows a cure wins."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, time
from typing import Any

from groupwise.config import schema
from groupwise.config.names import Name, dotted
from groupwise.config.suggest import similar
from groupwise.config.toml_text import shown, toml_value

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_SHORTHANDS = {"model": "id", "task": "kind", "algorithm": "preset", "rewards": "function"}
"""The setting that is meant when one of these tables is given as a text."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """A value that its setting does not take."""

    name: Name
    value: Any
    node: schema.Node
    is_override: bool

    @property
    def types(self) -> set[str]:
        """The JSON types that the setting takes."""
        return schema.json_types(self.node)

    def written(self, value: object, *below: str) -> str:
        """The assignment as the user would write it, in the file or on the command line."""
        name = (*self.name, *below)
        if self.is_override:
            return shlex.quote(f"{dotted(name)}={shown(value)}")
        if isinstance(name[-1], int):
            return shown(value)
        return f"{dotted(name) if below else dotted(name[-1:])} = {shown(value)}"


def cure(wrong: Wrong) -> str | None:
    """The sentence that cures it, if one of the rules knows it."""
    return next((sentence for rule in _RULES if (sentence := rule(wrong)) is not None), None)


def _boolean(wrong: Wrong) -> str | None:
    value = _BOOLEANS.get(str(wrong.value).lower())
    return f"Write {wrong.written(value)}" if wrong.types == {"boolean"} and value is not None else None


def _quoted_number(wrong: Wrong) -> str | None:
    if not isinstance(wrong.value, str) or not wrong.types & {"integer", "number"}:
        return None
    try:
        number = tomllib.loads(f"number = {wrong.value}")["number"]
    except (ValueError, RecursionError):
        return None
    return f"Take the quotes off: {wrong.written(number)}" if isinstance(number, (int, float)) else None


def _whole_float(wrong: Wrong) -> str | None:
    fits = "integer" in wrong.types and isinstance(wrong.value, float) and wrong.value.is_integer()
    return f"Write {wrong.written(int(wrong.value))}" if fits else None


def _choice(wrong: Wrong) -> str | None:
    likely = similar(wrong.value, schema.choices(wrong.node)) if isinstance(wrong.value, str) else None
    return f'Did you mean "{likely}"?' if likely else None


def _unquoted_text(wrong: Wrong) -> str | None:
    is_scalar = isinstance(wrong.value, (int, float, date, time))
    if not is_scalar or "string" not in wrong.types or schema.choices(wrong.node):
        return None
    text = toml_value(wrong.value) if not isinstance(wrong.value, time) else str(wrong.value)
    return f"Put it in quotes: {wrong.written(text)}"


def _list(wrong: Wrong) -> str | None:
    if "array" not in wrong.types or isinstance(wrong.value, list):
        return None
    if wrong.is_override and isinstance(wrong.value, str) and wrong.value.startswith("["):
        return "In a shell, put the whole override in single quotes"
    if schema.item(wrong.node).get("$ref"):
        return f"Write [[{dotted(wrong.name)}]] with two brackets, and its settings below it"
    return f"Put it in brackets: {wrong.written([wrong.value])}"


def _table(wrong: Wrong) -> str | None:
    if "object" not in wrong.types:
        return None
    if wrong.value is False and "null" in wrong.types:
        return f"Write {dotted(wrong.name)}=none" if wrong.is_override else "Leave it out"
    setting = _SHORTHANDS.get(str(wrong.name[0]))
    if setting and isinstance(wrong.value, str):
        if isinstance(wrong.name[-1], int) and not wrong.is_override:
            return f"Write {{{setting} = {shown(wrong.value)}}} in its place"
        return f"Write {wrong.written(wrong.value, setting)}"
    if wrong.is_override:
        defaults = f", or {dotted(wrong.name)}={{}} for its defaults" if "null" in wrong.types else ""
        return f"Override a setting in it: {dotted(wrong.name)}.SETTING=VALUE{defaults}"
    table = f"[[{wrong.name[0]}]]" if isinstance(wrong.name[-1], int) else f"[{dotted(wrong.name)}]"
    return f"Write {table} and its settings below it"


_RULES: tuple[Callable[[Wrong], str | None], ...] = (
    _boolean,
    _quoted_number,
    _whole_float,
    _choice,
    _unquoted_text,
    _list,
    _table,
)
