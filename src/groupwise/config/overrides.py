"""Overrides of the command line: `optimizer.lr=2e-5`, put over the recipe before it is checked.

The value is TOML. What is no TOML is taken as a text, so `model.id=me/my-model` needs no quotes. `none` takes back what
may be unset (`lora=none`), a number names an item of a list (`rewards.0.weight=2`; the number after the last one adds
an item), and a whole table (`lora={r = 8}`) replaces the one that was there. Relative paths start where the command
runs (see `paths.py`).
"""

from __future__ import annotations

import tomllib
from typing import Any, cast

from groupwise.config import schema
from groupwise.config.draft import COMMAND_LINE, Draft, Mistake, Origin
from groupwise.config.names import Name, dotted, is_too_deep
from groupwise.config.report import task_kind
from groupwise.config.toml_lines import read_key
from groupwise.config.toml_text import shown

_ORIGIN = Origin(COMMAND_LINE)


class _BadOverrideError(Exception):
    """What is wrong with an override and cures it."""


def apply_override(draft: Draft, override: str) -> None:
    """Put one override over the draft, or note why that is not possible."""
    try:
        parts, text = _split(override)
        made = _put(draft, parts, _value(parts, text, draft))
    except _BadOverrideError as bad:
        draft.mistakes.append(Mistake(_ORIGIN, (), f"{ascii(override)[1:-1]}: {bad}"))
        return
    name = made[-1]
    for other in [other for other in draft.given if other[: len(name)] == name]:
        del draft.given[other]
    draft.given.update(dict.fromkeys(made, _ORIGIN))


def _split(override: str) -> tuple[tuple[str, ...], str]:
    if "=" not in override:
        raise _BadOverrideError("an override is name=value, such as optimizer.lr=2e-5; this one has no =")
    try:
        parts, end = read_key(override)
    except ValueError:
        parts, end = (), 0
    if not parts or override[end] != "=":
        raise _BadOverrideError("in front of the = goes the name of a setting, such as optimizer.lr=2e-5")
    text = override[end + 1 :].strip()
    if not text:
        raise _BadOverrideError(f"nothing stands after the =. For an empty text write {dotted(parts)}='\"\"'")
    return parts, text


def _value(parts: tuple[str, ...], text: str, draft: Draft) -> Any:
    node = schema.find(tuple(int(part) if part.isdecimal() else part for part in parts), task_kind(draft.tree))
    if text == "none" and node is not None and "null" in schema.json_types(node):
        return None
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 and not is_too_deep(parsed) else text


def _put(draft: Draft, parts: tuple[str, ...], value: Any) -> list[Name]:
    """Set the value, and make the tables and lists on the way that are not there yet: the names of all that is new."""
    container: dict[str, Any] | list[Any] = draft.tree
    name: Name = ()
    made: list[Name] = []
    for place, part in enumerate(parts):
        is_last = place == len(parts) - 1
        name = (*name, int(part) if isinstance(container, list) and part.isdecimal() else part)
        fresh: Any = value if is_last else [] if _is_list(name, draft) else {}
        inner = _entered(container, part, fresh, name, is_last=is_last)
        if not is_last and not isinstance(inner, (dict, list)):
            raise _BadOverrideError(f"{dotted(name)} is {shown(inner)}, there is nothing below it to set")
        if inner is fresh:
            made.append(name)
        container = cast("dict[str, Any] | list[Any]", inner)
    return made


def _is_list(name: Name, draft: Draft) -> bool:
    node = schema.find(name, task_kind(draft.tree))
    return node is not None and "array" in schema.json_types(node)


def _entered(container: dict[str, Any] | list[Any], part: str, fresh: Any, name: Name, *, is_last: bool) -> Any:
    """What stands under the key afterwards: what was there, or the fresh value where nothing was or at the end."""
    if isinstance(container, dict):
        if is_last or container.get(part) is None:
            container[part] = fresh
        return container[part]
    where, length = dotted(name[:-1]), len(container)
    if not part.isdecimal() or int(part) > length:
        raise _BadOverrideError(f"{where} is a list: name an item by its number, from {where}.0 to {where}.{length}")
    if int(part) == length:
        container.append(fresh)
    elif is_last:
        container[int(part)] = fresh
    return container[int(part)]
