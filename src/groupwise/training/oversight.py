"""Who looks at a run from above after every step: alarms, and whether it has had enough.

oversight = Oversight(parts.recipe, run, reporter)
metrics |= oversight.seen(groups)                 inside a step
oversight.verdict(history)                        after it: Verdict("stop", "the alarm collapse, at step 52")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from groupwise.config import Recipe
from groupwise.runs.folder import RunFolder
from groupwise.training.budgets import Budgets, Spent
from groupwise.training.reporter import Reporter
from groupwise.training.signs import signs
from groupwise.training.watch import Watch
from groupwise.types import Group

Action: TypeAlias = Literal["go on", "pause", "stop", "roll_back"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of the run after a step, and why."""

    action: Action = "go on"
    why: str = ""


class Oversight:
    """The alarms and the budgets of one run."""

    def __init__(self, recipe: Recipe, run: RunFolder, reporter: Reporter, spent: Spent | None = None) -> None:
        self._run, self._reporter = run, reporter
        self._watch = Watch(recipe.alarms, run.path / "alarms.jsonl", reporter.message, run.patience.append)
        action = recipe.alarms.action
        self._action: Action = "go on" if action == "tell" else action
        self.budgets = Budgets(recipe.budgets, spent)
        self._groups: Sequence[Group] = ()

    def seen(self, groups: Sequence[Group]) -> dict[str, float]:
        """The groups of the step at hand; returns what the alarms need to know of them, as metrics."""
        self._groups = groups
        return signs(groups)

    def verdict(self, steps: Sequence[Mapping[str, Any]]) -> Verdict:
        """Tell the alarms of the newest step; what one of them, or a budget that is used up, makes of the run."""
        evaluations = [row for row in self._run.evaluations() if row.get("label") != "eval"]
        alarms = self._watch.after_step(steps, evaluations, self._groups)
        self._groups = ()
        if acting := self._watch.acting(alarms):
            why = f"alarm {acting.name} at step {acting.step} (alarms.action)"
            if self._action == "stop":
                self._reporter.message(f"the run ends: {why}")
            return Verdict(self._action, why)
        if met := self.budgets.met(steps, evaluations):
            self._reporter.message(f"the run ends at step {steps[-1]['step']}: {met}")
            return Verdict("stop", met)
        return Verdict()

    def note(self, step: int, text: str, evidence: Mapping[str, float]) -> None:
        """Write down beside the alarms what became of one."""
        self._watch.note(step, text, evidence)
