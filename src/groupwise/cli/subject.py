"""What a command is about: a run, a recipe, or a model alone. All three become a loaded recipe.

subject("runs/demo")                          the run's recipe, with the model that it trained
subject("recipe.toml")                        the recipe, with the model that it starts from
subject("Qwen/Qwen2.5-0.5B-Instruct", [...])  that model, and whatever the overrides say
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from groupwise.errors import RecipeError, RunError

if TYPE_CHECKING:
    from groupwise.config import LoadedRecipe
    from groupwise.runs.folder import RunFolder

NO_TASK = {"kind": "dataset", "path": "(none)"}
"""Stands in the recipe of a model alone, which needs no problems to be talked to or exported."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A recipe whose model is the one that is meant, and the run that it was trained in, if it was."""

    loaded: LoadedRecipe
    run: RunFolder | None = None


def subject(name: str, overrides: Sequence[str] = (), *, with_task: bool = False) -> Subject:
    """Find out what is meant. `with_task`: a model alone is not enough, the overrides must name its task."""
    from groupwise.config import load_recipe
    from groupwise.runs.folder import RunFolder

    path = Path(name).expanduser()
    if (path / "run.json").is_file():
        run = RunFolder.open(path)
        # Where it was trained may be another machine than this one.
        return Subject(run.trained_recipe(["model.device=auto", *overrides]), run)
    if path.is_file() or path.suffix == ".toml":
        return Subject(load_recipe(path, overrides))
    _refuse_what_is_no_model(path)
    if not with_task:
        return Subject(load_recipe({"model": {"id": name}, "task": NO_TASK}, overrides))
    if not any(override.startswith("task") for override in overrides):
        raise RecipeError(
            f"{name} is a model, and a model alone does not say what to evaluate it on: add a task, such as "
            "task.kind=gsm8k, or name a recipe or a run"
        )
    return Subject(load_recipe({"model": {"id": name}}, overrides))


def _refuse_what_is_no_model(path: Path) -> None:
    """A folder that is neither run nor model, and a path among runs: better told here than by asking the hub."""
    from groupwise.runs.names import meant, not_a_run

    if path.is_dir():
        if not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise RunError(f"{not_a_run(path)}. Nor is it a model: there is no config.json in it")
    elif path.parent != Path() and (meant(path) if not path.parent.is_dir() else any(path.parent.glob("*/run.json"))):
        raise RunError(not_a_run(path))
