"""Names of settings: `("rewards", 0, "weight")` inside, `rewards.0.weight` for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

from groupwise.config.toml_text import toml_key

Name: TypeAlias = tuple[str | int, ...]
"""A setting's place in the recipe: keys of tables, numbers in lists."""


def dotted(name: Name) -> str:
    """The name as it is written in an override. Example: `dotted(("rewards", 0, "weight")) == "rewards.0.weight"`"""
    return ".".join(str(part) if isinstance(part, int) else _key(part) for part in name)


def as_table(value: object) -> dict[str, Any]:
    """The value where it is a table, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """The value where it is a list, else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def is_table_list(value: object) -> bool:
    """Whether the value is written as `[[tables]]`: a list with something in it, and tables only."""
    return bool(as_list(value)) and all(isinstance(item, dict) for item in as_list(value))


def leaves(tree: Mapping[str, Any], name: Name = ()) -> Iterator[tuple[Name, Any]]:
    """Every setting of a resolved recipe with its value: tables and the list of rewards are opened, values are not."""
    for key, value in tree.items():
        here = (*name, key)
        if as_table(value):
            yield from leaves(as_table(value), here)
        elif is_table_list(value) and not name:
            for place, item in enumerate(as_list(value)):
                yield from leaves(item, (*here, place))
        else:
            yield here, value


def holds(tree: object, name: Name) -> bool:
    """Whether the tree has a value, of whatever kind, under this name."""
    for part in name:
        if part in as_table(tree):
            tree = as_table(tree)[str(part)]
        elif isinstance(part, int) and part < len(as_list(tree)):
            tree = as_list(tree)[part]
        else:
            return False
    return True


def is_too_deep(value: object, limit: int = 40) -> bool:
    """Whether lists and tables stand in each other deeper than any recipe needs, or in a circle."""
    level = [value]
    for _ in range(limit):
        level = [inner for outer in level for inner in _inside(outer)]
    return bool(level)


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return cast("Mapping[str, Any]", value).values()
    return cast("Sequence[Any]", value) if isinstance(value, (list, tuple)) else ()


def _key(part: str) -> str:
    try:
        return toml_key(part)
    except TypeError:  # a name that TOML cannot hold is still shown
        return ascii(part)
