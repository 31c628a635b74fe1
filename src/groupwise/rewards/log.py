"""What reward functions note beside their grades, through TRL's `log_extra` and `log_metric`.

    def judged(completions, log_extra, log_metric, **kwargs):
        verdicts = [ask(text) for text in completions]
        log_extra("verdict", [v.text for v in verdicts])          # a column of the rollouts table
        log_metric("verdict/sure", mean(v.sure for v in verdicts))  # a number in the step's metrics
        return [v.score for v in verdicts]

Hand a fresh `GradingLog` to `grade`, then read `columns` and `metrics`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from groupwise.errors import RewardError


@dataclass(slots=True)
class GradingLog:
    """Extra columns, one value per row of the batch, and metrics, each the mean of what was logged under its name."""

    columns: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    noted: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    @property
    def metrics(self) -> dict[str, float]:
        """Mean of every metric over the calls that logged it."""
        return {name: math.fsum(values) / len(values) for name, values in self.noted.items()}

    def add(self, other: GradingLog, rows: Sequence[int], total: int) -> None:
        """Take over what another log noted about some of the rows: None stands for the others."""
        for name, values in other.columns.items():
            known = dict(zip(rows, values, strict=True))
            self.columns[free_name(name, self.columns)] = [known.get(row) for row in range(total)]
        for name, numbers in other.noted.items():
            self.noted.setdefault(name, []).extend(numbers)


@dataclass(frozen=True, slots=True)
class Notebook:
    """One reward function's way into a `GradingLog`: it knows whom to name when what is logged makes no sense."""

    log: GradingLog
    function: str
    rows: int

    def log_extra(self, column: str, values: Iterable[Any]) -> None:
        """Add a column to the rollouts table. A name that is taken gets a number, so that nothing is overwritten."""
        listed = list(values)
        if len(listed) != self.rows:
            raise RewardError(
                f"reward function {self.function!r} called log_extra({column!r}, ...) with {len(listed)} values for "
                f"{self.rows} completions: give exactly one per completion, in order"
            )
        self.log.columns[free_name(column, self.log.columns)] = listed

    def log_metric(self, name: str, value: float) -> None:
        """Add a number to the step's metrics; several under one name are averaged."""
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise RewardError(
                f"reward function {self.function!r} called log_metric({name!r}, {ascii(value)[:80]}): "
                "a metric is one finite number"
            )
        self.log.noted.setdefault(name, []).append(number)


def free_name(name: str, taken: Iterable[str]) -> str:
    """The name, or with the first number from 2 on that makes it different from all that are taken."""
    used = set(taken)
    number, free = 1, name
    while free in used:
        number += 1
        free = f"{name}_{number}"
    return free
