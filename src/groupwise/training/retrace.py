"""Bring policy and learner to where they were before a recorded step: through the nearest checkpoint before it, and
from there by learning again from the rollouts that were recorded.

    retraced = retrace(run, parts, recorded, before=30)     # recorded(step) are the groups that trained in it
    retraced.learner                                        # of step 29; its policy is the one that sampled step 30
    retraced.how                                            # "the checkpoint of step 25, and 4 steps learnt again"

Nothing is sampled on the way: an update depends on what was sampled, and that is in the run folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from groupwise.errors import RunError
from groupwise.learner.finite import NonFiniteError
from groupwise.learner.learner import Learner
from groupwise.runs.checkpoints.contents import as_written
from groupwise.runs.files import read_rows
from groupwise.runs.folder import RunFolder
from groupwise.training.build import Parts
from groupwise.training.keeper import Keeper
from groupwise.training.loop import learner_of
from groupwise.training.randomness import Randomness
from groupwise.training.selection import masked
from groupwise.training.step import with_advantages
from groupwise.training.trainer import run_to_end
from groupwise.types import Group


@dataclass(frozen=True, slots=True)
class Retraced:
    """The learner before a step, and how it came there."""

    learner: Learner
    how: str


def retrace(
    run: RunFolder, parts: Parts, recorded: Callable[[int], Sequence[Group]], *, before: int, exact: bool
) -> Retraced:
    """The learner as it was before this step; RunError where the way is not recorded. `exact` is the engine's."""
    learner = learner_of(parts)
    random = Randomness(parts.recipe.seed)
    kept = Keeper(parts, run, learner, lambda _: None).look_back(before - 1)
    start = 0
    if kept is not None:
        with as_written(run.checkpoints.folder):
            start = int(kept["run"]["step"])
            random.restore(kept["random"])
    there = set(run.rollout_steps())
    if missing := [step for step in range(start + 1, before) if step not in there]:
        raise RunError(f"{run.path} has no rollouts of step {missing[0]}, on the way from step {start} to {before}")
    for step in range(start + 1, before):
        learner.optimizer.slowed = slowed(run, step)
        groups = recorded(step)
        penalties = learner.penalties(groups, sampler_is_exact=exact)
        groups = masked(with_advantages(groups, parts.algorithm, penalties), parts.algorithm)
        with suppress(NonFiniteError):  # a step that was skipped: what was refused then is refused now
            run_to_end(learner.update(groups, sampler_is_exact=exact))
    learner.optimizer.slowed = slowed(run, before)
    begun = f"the checkpoint of step {start}" if start else "the weights that training began with"
    again = f", and {before - 1 - start} steps learnt again" if before - 1 > start else ""
    return Retraced(learner, begun + again)


def slowed(run: RunFolder, step: int) -> float:
    """The share of the learning rate at which this step was learnt: below 1 once an alarm took the run back."""
    rows = [row for row in read_rows(run.path / "alarms.jsonl") if row.get("alarm") == "roll_back"]
    rates = [float(row["evidence"]["learning_rate"]) for row in rows if int(row.get("step", 0)) < step]
    return rates[-1] if rates else 1.0
