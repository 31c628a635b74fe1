"""`groupwise sft recipe.toml [a.b=c ...]`: the warm start, on demonstrations."""

from __future__ import annotations

from groupwise.cli.train import Overrides, RecipeArgument, carried_out, tell_what_next

_OF_THE_WARM_START = ("model.id=", "run.name=", "sft.")
"""Overrides that have no place in the command that goes on from it."""


def sft(recipe: RecipeArgument, overrides: Overrides = None) -> None:
    """Train on demonstrations: the warm start before training by rewards.

    The demonstrations are the task's own, or rows with a prompt and a completion (sft.path of the recipe).
    """
    run = carried_out("sft", recipe, overrides or [])
    kept = [said for said in overrides or [] if not said.startswith(_OF_THE_WARM_START)]
    further = ["train", str(recipe), *kept, f"model.id={run.model_path}", f"run.name={run.path.name}-2"]
    tell_what_next(run, {"train it by rewards": further, "talk to it": ["sample", str(run.path)]})
