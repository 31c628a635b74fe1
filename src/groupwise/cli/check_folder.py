"""What `groupwise check` says of the run's folder: whether a run would begin there, go on, or be refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from groupwise.cli.findings import Finding

if TYPE_CHECKING:
    from groupwise.config import LoadedRecipe


def folder(loaded: LoadedRecipe) -> Iterator[Finding]:
    """By what `groupwise train` would do. Nothing is written, so a folder that is not there yet stays so."""
    from groupwise.errors import FinishedError, RunError
    from groupwise.runs import entrance, names

    section = loaded.recipe.run
    try:
        path = entrance.home(Path(section.folder)) / names.checked(section.name)
        if not path.is_dir():
            yield Finding("run", "ok", f"{path} is new")
            return
        found = entrance.look(path.parent, section.name, loaded, "train")
    except FinishedError as error:
        yield Finding("run", "warning", str(error))
    except RunError as error:
        yield Finding("run", "error", str(error))
    else:
        changed = "".join(f"\nchanged since the run was here: {change}" for change in found.changes)
        yield Finding("run", "ok", f"{path} begins" if found.begins else f"{path} goes on{changed}")
