"""Where a recipe is read from: a TOML file, or a mapping that a program made. Both become a `Draft`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from groupwise.config.draft import IN_CODE, Draft, Origin
from groupwise.config.names import is_too_deep
from groupwise.config.sections import Section
from groupwise.config.suggest import similar
from groupwise.config.toml_lines import line_numbers
from groupwise.errors import RecipeError

_DEEP = "tables and lists stand in each other deeper than any setting needs"


def from_file(path: Path) -> Draft:
    """Read a recipe with the line of every name; raises RecipeError if that is no TOML file."""
    text = _text(path)
    try:
        tree = tomllib.loads(text)
    except ValueError as error:
        raise RecipeError(_not_toml(path, text, str(error))) from None
    except RecursionError:
        tree = None
    if tree is None or is_too_deep(tree):
        raise RecipeError(f"{path}  not a recipe: {_DEEP}")
    return Draft(str(path), tree, {name: Origin(str(path), line) for name, line in line_numbers(text).items()})


def from_mapping(source: Mapping[str, Any]) -> Draft:
    """Take a recipe that was made in code; the draft is a copy and nothing is changed in the original."""
    if is_too_deep(source):
        raise RecipeError(f"{IN_CODE}  not a recipe: {_DEEP}")
    return Draft(IN_CODE, _plain(source), {(): Origin(IN_CODE)})


def _plain(value: Any) -> Any:
    """Sections, other mappings and tuples become the dicts and lists that TOML would have given."""
    if isinstance(value, Section):
        value = value.model_dump(exclude_unset=True)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast("Sequence[Any]", value)]
    return value


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise RecipeError(f"{path}:{line}  this is not UTF-8. Save the file as UTF-8 text") from None
    except FileNotFoundError:
        raise RecipeError(f"{path}  there is no such file. {_near(path)}") from None
    except IsADirectoryError:
        inside = path / "recipe.toml"
        cure = f"Did you mean {inside}?" if inside.is_file() else "Name the TOML file in it"
        raise RecipeError(f"{path}  this is a folder, a recipe is a file. {cure}") from None
    except (OSError, ValueError) as error:
        # ValueError: a path that no file can have, such as one with a NUL.
        raise RecipeError(f"{path}  cannot be read: {error}") from None


def _near(path: Path) -> str:
    likely = similar(path.name, [other.name for other in path.absolute().parent.glob("*.toml")])
    return f"Did you mean {path.with_name(likely)}?" if likely else "`groupwise init` writes a recipe to start from"


def _not_toml(path: Path, text: str, reason: str) -> str:
    """tomllib says where in words; we say it as `file:line`, as everywhere."""
    place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", reason)
    if place is None:
        return f"{path}  not valid TOML: {reason}"
    line = place[1] or text.rstrip().count("\n") + 1
    return f"{path}:{line}  not valid TOML: {reason[: place.start()]}. Texts need quotes, each setting its own line"
