"""The resolved recipe as TOML, each value with where it came from. The text loads again to the same recipe.

[train]
steps = 50  # recipe.toml:2
prompts_per_step = 8  # default
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from groupwise.config.draft import DEFAULT
from groupwise.config.names import Name, dotted, is_table_list, leaves
from groupwise.config.recipe import Recipe
from groupwise.config.toml_text import toml_value


def to_toml(recipe: Recipe, origins: Mapping[str, str], folder: Path) -> str:
    """Write every setting with its origin as a comment. TOML has no null: what is unset becomes a comment itself."""
    tree = recipe.model_dump()
    is_table = {key: isinstance(value, dict) or is_table_list(value) for key, value in tree.items()}
    lines = [
        "# The whole recipe of a run: every setting, and where its value came from.",
        f"# Relative paths start in {ascii(str(folder))[1:-1]}",
        "",
    ]
    lines += _settings({key: value for key, value in tree.items() if not is_table[key]}, (), origins)
    for key in (key for key in tree if is_table[key]):
        lines += _tables(key, tree[key], origins)
    return "\n".join(lines) + "\n"


def _tables(key: str, value: Any, origins: Mapping[str, str]) -> Iterator[str]:
    if isinstance(value, dict):
        yield f"\n[{key}]"
        yield from _settings(cast("dict[str, Any]", value), (key,), origins)
        return
    for place, item in enumerate(value):
        yield f"\n[[{key}]]"
        yield from _settings(item, (key, place), origins)


def _settings(table: dict[str, Any], name: Name, origins: Mapping[str, str]) -> Iterator[str]:
    """One line a setting, `kind` first; a table in the table is written with dotted keys (`settings.target = 50`)."""
    for leaf, value in sorted(leaves(table, name), key=lambda item: item[0][-1] != "kind"):
        key, origin = dotted(leaf[len(name) :]), _comment(origins.get(dotted(leaf), DEFAULT))
        yield f"# {key} is unset ({origin})" if value is None else f"{key} = {toml_value(_set(value))}  # {origin}"


def _set(value: Any) -> Any:
    """What a list of tables sets: in one line there is no place for a comment about what is unset."""
    if isinstance(value, dict):
        return {key: _set(item) for key, item in cast("dict[str, Any]", value).items() if item is not None}
    return [_set(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value


def _comment(text: str) -> str:
    """A file name may hold anything, a comment may not."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
