"""`groupwise import trl|verl|openrlhf FILE`: the settings of another trainer as a recipe, with a report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, cast

import typer

from groupwise.errors import RecipeError, RunError

if TYPE_CHECKING:
    from groupwise.compat.imports.report import Imported

Trainer: TypeAlias = Literal["trl", "verl", "openrlhf"]


def import_(
    trainer: Annotated[Trainer, typer.Argument(help="Whose settings they are.")],
    file: Annotated[Path, typer.Argument(help="Its yaml; of OpenRLHF a script or a text with its flags.")],
    out: Annotated[Path, typer.Option(help="The recipe to write.")] = Path("recipe.toml"),
    rows: Annotated[int, typer.Option(help="Rows of the training data, for steps of epochs.")] = 1000,
) -> None:
    """Write a recipe that says the same, and say what became of each setting.

    Lines that begin with "-" change nothing here, and those with "!" need your look.
    """
    from groupwise.config import load_recipe
    from groupwise.runs.files import cannot_write

    if out.exists():
        raise RunError(f"{out} is there already, and nothing is overwritten: name another file with --out")
    imported = _read(trainer, file, rows)
    text = imported.to_toml()
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(cannot_write(out, error)) from error
    for line in sorted(imported.lines, key=lambda line: line.fate):
        typer.echo(str(line))
    lost = sum(line.fate == "lost" for line in imported.lines)
    read = len({line.name for line in imported.lines})
    look = (
        "one line needs your look" if lost == 1 else f"{lost} lines need your look" if lost else "all are accounted for"
    )
    typer.echo(f"\n{out}: {read} settings, {look}")
    try:
        load_recipe(out)
    except RecipeError as error:
        typer.echo(f"It needs your hand before it trains:\n{error}")
    else:
        typer.echo(f"train it: groupwise train {out}")


def _read(trainer: Trainer, file: Path, rows: int) -> Imported:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file} cannot be read: {error}") from error
    if trainer == "openrlhf":
        from groupwise.compat.imports.openrlhf import read_openrlhf

        return read_openrlhf(text, file.name)
    tree = _yaml(text, file)
    if trainer == "verl":
        from groupwise.compat.imports.verl import read_verl

        return read_verl(tree, file.name)
    from groupwise.compat.imports.trl import read_trl

    return read_trl(tree, file.name, rows)


def _yaml(text: str, file: Path) -> Mapping[str, Any]:
    from importlib import import_module

    yaml: Any = import_module("yaml")
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{file} is not valid yaml: {error}") from error
    if not isinstance(tree, Mapping):
        raise RecipeError(f"{file} holds no settings: a mapping of names to values is expected")
    return cast("Mapping[str, Any]", tree)
