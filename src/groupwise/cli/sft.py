"""`groupwise sft recipe.toml [a.b=c ...]`: the warm start, on demonstrations."""

from __future__ import annotations

import tomllib
from pathlib import Path

from groupwise.cli.train import Overrides, RecipeArgument, carried_out, tell_what_next

_OF_THE_WARM_START = ("model.id=", "run.name=", "sft.")
"""Overrides that have no place in the command that goes on from it."""


def sft(recipe: RecipeArgument, overrides: Overrides = None) -> None:
    """Train on demonstrations: the warm start before training by rewards.

    The demonstrations are the task's own, or rows with a prompt and a completion (sft.path of the recipe).
    """
    run, _ = carried_out("sft", recipe, overrides or [])
    kept = [said for said in overrides or [] if not said.startswith(_OF_THE_WARM_START)]
    further = ["train", str(recipe), *kept, f"model.id={run.model_path}", f"run.name={run.path.name}-2"]
    if (written := _going_on_from(run.model_path, recipe)) is not None:
        further = ["train", str(written)]
    tell_what_next(run, {"train it by rewards": further, "talk to it": ["sample", str(run.path)]})


def _going_on_from(model: Path, recipe: Path) -> Path | None:
    """The recipe beside this one that begins with that model, where somebody wrote one."""
    for other in sorted(recipe.absolute().parent.glob("*.toml")):
        try:
            section = tomllib.loads(other.read_text(encoding="utf-8")).get("model", {})
            if (other.parent / Path(section["id"]).expanduser()).resolve() == model.resolve():
                return recipe.with_name(other.name)
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError):
            continue  # no recipe, or one without a model's name: none of our business here
    return None
