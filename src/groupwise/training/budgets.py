"""When a run has had enough: of time, of tokens, or because it is good enough, or gets no better.

budgets = Budgets(recipe.budgets, Spent(seconds=1800.0))
budgets.met(steps, evaluations)       None, or "the held-out accuracy 0.91 has reached budgets.accuracy = 0.9"
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groupwise.config.budgets import BudgetsSection


@dataclass(frozen=True, slots=True)
class Spent:
    """What no row of metrics.jsonl tells any more."""

    seconds: float = 0.0
    """That earlier attempts of the run took, also for what a kill lost of them."""
    tokens: float = 0.0
    """That were sampled in steps which an alarm took back."""


class Budgets:
    """The budgets of one run. `spent` is what was spent before, and is not in the rows of its steps."""

    def __init__(
        self, section: BudgetsSection, spent: Spent | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._section, self._clock, self._spent = section, clock, spent or Spent()
        self._begun = clock() - self._spent.seconds

    @property
    def seconds(self) -> float:
        """Of all attempts so far."""
        return self._clock() - self._begun

    def met(self, steps: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]) -> str | None:
        """The budget that is used up, in words; None: go on."""
        section = self._section
        if section.hours is not None and self.seconds >= section.hours * 3600:
            hours = self.seconds / 3600
            passed = f"{hours:.2f}" if hours >= 0.1 else f"{hours:.2g}"
            return f"{passed} hours have passed (budgets.hours = {section.hours:g})"
        sampled = self._spent.tokens + tokens_of(steps)
        if section.sampled_tokens is not None and sampled >= section.sampled_tokens:
            return f"{sampled:,.0f} tokens were sampled (budgets.sampled_tokens = {section.sampled_tokens:,})"
        return self._by_accuracy([float(row["accuracy"]) for row in evaluations if row.get("accuracy") is not None])

    def _by_accuracy(self, accuracies: Sequence[float]) -> str | None:
        section = self._section
        if not accuracies:
            return None
        if section.accuracy is not None and accuracies[-1] >= section.accuracy:
            return f"the held-out accuracy {accuracies[-1]:.3f} has reached budgets.accuracy = {section.accuracy:g}"
        if section.patience is not None:
            best = accuracies.index(max(accuracies))
            waited = len(accuracies) - 1 - best
            if waited >= section.patience:
                return (
                    f"the held-out accuracy has not been better than {accuracies[best]:.3f} for {waited} evaluations "
                    f"(budgets.patience = {section.patience})"
                )
        return None


def tokens_of(steps: Sequence[Mapping[str, Any]]) -> float:
    """That were sampled in these steps."""
    return sum(float(row.get("sampled_tokens") or 0) for row in steps)


def seconds_of(steps: Sequence[Mapping[str, Any]]) -> float:
    """That these steps took."""
    return sum(float(row.get("step_seconds") or 0) for row in steps)
