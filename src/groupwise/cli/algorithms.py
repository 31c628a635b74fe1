"""`groupwise algorithms`: which there are, what they are made of, and what can be set."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from groupwise.config.toml_text import toml_value
from groupwise.errors import RecipeError

if TYPE_CHECKING:
    from groupwise.config.presets import Preset
    from groupwise.learner.catalogue import Entry


def algorithms(
    what: Annotated[
        str | None, typer.Argument(metavar="PRESET|TABLE", help="A preset, or a table such as surrogate. None: all.")
    ] = None,
) -> None:
    """List the algorithms, or the entries that they are made of.

    \b
    groupwise algorithms             every preset, and how it differs from grpo
    groupwise algorithms gspo        the entries of one, with their settings
    groupwise algorithms surrogate   every entry of a table, with its paper
    """
    from groupwise.learner import catalogue

    known = {preset.name: preset for preset in catalogue.presets()}
    if what is None:
        lines = _overview(list(known.values()), catalogue.kinds())
    elif what in catalogue.kinds():
        lines = _table(what)
    elif what in known:
        lines = _preset(known[what])
    else:
        raise RecipeError(
            f"{what!r} is neither a preset nor a table. Presets: {', '.join(known)}. Tables: "
            f"{', '.join(catalogue.kinds())}"
        )
    typer.echo("\n".join(lines))


def _overview(presets: list[Preset], kinds: list[str]) -> Iterator[str]:
    from groupwise.learner.catalogue import changed

    for preset in presets:
        yield from _wrapped(f"{preset.name:<22} {preset.about}", 23)
        yield from _wrapped(f"{'':<22} {_assignments(changed(preset))}", 23)
    yield ""
    yield from _wrapped(
        f"Every one of these settings can be set in [algorithm]. Tables of entries: {', '.join(kinds)}", 0
    )


def _table(kind: str) -> Iterator[str]:
    from groupwise.learner.catalogue import entries, offered

    for entry in entries(kind):
        yield from _entry(entry)
    yield ""
    own = (
        f'One of your own: "file.py:name", a function that names its data ({", ".join(offered(kind))}), then a *, then '
    )
    yield from _wrapped(f"{own}its settings.", 0)


def _preset(preset: Preset) -> Iterator[str]:
    from groupwise.learner.catalogue import entries, kinds

    yield from _wrapped(f"{preset.name}: {preset.about}", 2)
    yield f"  {_assignments(preset.entries)}"
    for kind in kinds():
        chosen = preset.entries.get(kind)
        names = preset.entries.get("filters", []) if kind == "filter" else [chosen]
        for entry in entries(kind):
            if entry.name in names:
                yield ""
                yield from _entry(entry, f"{kind} = ")


def _entry(entry: Entry, prefix: str = "") -> Iterator[str]:
    yield f"{prefix}{entry.name}"
    yield from _wrapped(f"  {entry.summary}", 2)
    if entry.papers:
        yield from _wrapped(f"  {'; '.join(entry.papers)}", 2)
    for setting in entry.settings:
        default = "" if setting.default is None else f" = {_value(setting.default)}"
        yield f"  {setting.name}{default}{f'  ({setting.bounds})' if setting.bounds else ''}"


def _assignments(entries: Any) -> str:
    return ", ".join(f"{key} = {_value(value)}" for key, value in entries.items())


def _value(value: Any) -> str:
    return toml_value(list(value) if isinstance(value, tuple) else value)


def _wrapped(line: str, indent: int) -> list[str]:
    width = max(shutil.get_terminal_size().columns, 60)
    return textwrap.wrap(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
