"""`groupwise check recipe.toml [a.b=c ...]`: everything about a run that can be known before it.

Recipe, folder, rows, data, prompts, rewards, memory, disk; then, unless `--quick`, one step for its time and the base
model's own answers, with a verdict. Nothing is written. The step is a real one: a few minutes for a large model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from groupwise.cli.findings import Finding, tell
from groupwise.cli.train import Overrides, RecipeArgument

if TYPE_CHECKING:
    from groupwise.training.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Check:
    """The arguments and options of `groupwise check`."""

    recipe: RecipeArgument
    overrides: Overrides = None
    quick: Annotated[bool, typer.Option("--quick", help="Without the step: no time, no baseline.")] = False
    seconds: Annotated[float, typer.Option(min=1, help="The step may take about so long.")] = 90.0
    json: Annotated[bool, typer.Option("--json", help="Say it as JSON.")] = False


def check(options: Check) -> None:
    """Check a recipe before it is run: data, prompts, rewards, memory, time, disk, and whether it can be learnt.

    Ends with exit code 1 if something stands in the way of the run.
    """
    tell(found(options), as_json_text=options.json)


def found(options: Check) -> Iterator[Finding]:
    """Finding after finding. What cannot be loaded ends them, with all that is known about why."""
    from groupwise.config import load_recipe
    from groupwise.errors import GroupwiseError

    told: set[str] = set()
    try:
        loaded = load_recipe(options.recipe, options.overrides or [])
        count = sum(origin != "default" for origin in loaded.origins.values())
        yield Finding("recipe", "ok", f"{options.recipe}: {count} settings given, the others by default")
        from groupwise.cli.check_folder import folder
        from groupwise.cli.check_rows import rows
        from groupwise.training.trainer import Trainer

        yield from folder(loaded)
        for finding in rows(loaded):
            told.add(finding.text)
            yield finding
        trainer = Trainer.from_recipe(loaded)
        _ = trainer.parts
    except GroupwiseError as error:
        for line in str(error).splitlines():
            if line not in told:  # what could not be read is said once
                yield Finding("recipe", "error", line, "")
        return
    yield from of_parts(trainer)
    if options.quick:
        return
    from groupwise.cli.check_plan import baseline_and_time

    yield from baseline_and_time(trainer.parts, options.seconds)


def of_parts(trainer: Trainer) -> Iterator[Finding]:
    """What is cheap to know once everything is loaded."""
    from groupwise.cli.check_data import data, prompt
    from groupwise.cli.check_plan import disk, memory
    from groupwise.cli.check_rewards import rewards

    for look in (data, prompt, rewards, memory, disk):
        yield from look(trainer.parts)
