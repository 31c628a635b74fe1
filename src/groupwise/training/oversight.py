"""Who looks at a run from above after every step: alarms, and whether it has had enough.

oversight = Oversight(parts.recipe, run, reporter)
metrics |= oversight.seen(groups)                 inside a step
if oversight.ends(history): break                 after it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from groupwise.config import Recipe
from groupwise.runs.folder import RunFolder
from groupwise.training.budgets import Budgets
from groupwise.training.reporter import Reporter
from groupwise.training.signs import signs
from groupwise.training.watch import Watch
from groupwise.types import Group


class Oversight:
    """The alarms and the budgets of one run."""

    def __init__(self, recipe: Recipe, run: RunFolder, reporter: Reporter, *, spent_seconds: float = 0.0) -> None:
        self._run, self._reporter = run, reporter
        self._watch = Watch(recipe.alarms, run.path / "alarms.jsonl", reporter.message)
        self.budgets = Budgets(recipe.budgets, spent_seconds=spent_seconds)
        self._groups: Sequence[Group] = ()

    def seen(self, groups: Sequence[Group]) -> dict[str, float]:
        """The groups of the step at hand; returns what the alarms need to know of them, as metrics."""
        self._groups = groups
        return signs(groups)

    def ends(self, steps: Sequence[Mapping[str, Any]]) -> bool:
        """Tell the alarms of the newest step; says why, and True, if the run is to end here in good order."""
        evaluations = [row for row in self._run.evaluations() if row.get("label") != "eval"]
        alarms = self._watch.after_step(steps, evaluations, self._groups)
        self._groups = ()
        if acting := self._watch.acting(alarms):
            self._reporter.message(f"the run ends at step {acting.step}, as alarms.action says: {acting.name}")
            return True
        if met := self.budgets.met(steps, evaluations):
            self._reporter.message(f"the run ends at step {steps[-1]['step']}: {met}")
            return True
        return False
