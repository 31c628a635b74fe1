"""`groupwise train recipe.toml [a.b=c ...]`: a recipe becomes a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from groupwise.runs.folder import RunFolder
    from groupwise.training.build import Parts

RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, such as recipe.toml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[A.B=C ...]", help="Settings over those of the recipe, such as optimizer.lr=2e-5."),
]

MANY_PROBLEMS = 500
"""They tell an accuracy to about four points, and take no hour."""


def train(recipe: RecipeArgument, overrides: Overrides = None) -> None:
    """Train by rewards: GRPO, as the recipe says.

    Everything is written into a run folder (run.folder/run.name of the recipe). Ctrl-C, SIGTERM and SIGHUP stop within
    the step at hand and save; a second Ctrl-C leaves at once. The same command goes on where the run was left, whatever
    ended it.
    """
    run, parts = carried_out("train", recipe, overrides or [])
    tell_what_next(
        run,
        {
            "talk to it": ["sample", str(run.path)],
            **_evaluation(run, parts),
            "take it along": ["export", str(run.path), "--out", f"{run.path.name}-model"],
        },
    )


def _evaluation(run: RunFolder, parts: Parts) -> dict[str, list[str]]:
    """On more problems than while it trained, where more of them are held out; none without any."""
    there, asked = len(parts.task.held_out), parts.recipe.evaluation.problems
    more = [f"evaluation.problems={min(there, MANY_PROBLEMS)}"] if asked < min(there, MANY_PROBLEMS) else []
    return {"evaluate it": ["eval", str(run.path), *more]} if there else {}


def carried_out(verb: Literal["train", "sft"], recipe: Path, overrides: Sequence[str]) -> tuple[RunFolder, Parts]:
    """Load the recipe, say what it comes to, and train."""
    from groupwise.cli.progress import TerminalReporter, terminal
    from groupwise.config import load_recipe
    from groupwise.training.stop import Stop, exit_at_once

    loaded = load_recipe(recipe, overrides)
    console, stop = terminal(), Stop(leave=exit_at_once)
    with stop.not_begun(), TerminalReporter(console) as reporter:
        with console.status(f"loading {loaded.recipe.model.id}"):
            from groupwise.cli.header import header
            from groupwise.training.trainer import Trainer

            trainer = Trainer.from_recipe(loaded, reporter)
            parts = trainer.prepare(by_rewards=verb == "train")
        console.print(header(parts, verb), soft_wrap=not console.is_terminal)
        if verb == "train":
            from groupwise.cli.findings import show
            from groupwise.cli.remarks import remarks

            show(remarks(parts), console)
        return (trainer.train(stop) if verb == "train" else trainer.sft(stop)), parts


def tell_what_next(run: RunFolder, commands: dict[str, list[str]]) -> None:
    """Where everything is, and what one may want to do with it, ready to be copied."""
    from groupwise.cli.progress import terminal

    console = terminal()
    console.print(f"\nrun    {run.path}\nmodel  {run.model_path}\n", soft_wrap=True)
    width = max(map(len, commands))
    for purpose, command in commands.items():
        console.print(f"{purpose:<{width}}  {shlex.join(['groupwise', *command])}", soft_wrap=True)
