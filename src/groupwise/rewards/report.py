"""What reward functions say about a set of answers, in numbers: for `groupwise reward test`.

Distribution, time, what could not be graded, and whether two functions like the same answers.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median, pstdev

from groupwise.rewards.contract import Answers, RewardFunction
from groupwise.rewards.grading import grade
from groupwise.rewards.outcomes import Grade, with_unique_names


@dataclass(frozen=True, slots=True)
class FunctionReport:
    """One function over all answers."""

    name: str
    parts: tuple[float | None, ...]
    outcomes: Mapping[str, int]
    """How many were scored, wrong by a limit, unknown, ungraded (None)."""
    why: str
    """The first reason why a grade is unknown."""
    seconds: float

    @property
    def values(self) -> list[float]:
        """The parts that are numbers."""
        return [part + 0.0 for part in self.parts if part is not None]  # a penalty of nothing is 0, not -0

    @property
    def milliseconds(self) -> float:
        """Time for one answer."""
        return 1000 * self.seconds / max(len(self.parts), 1)

    @property
    def summary(self) -> dict[str, float]:
        """Mean, std, least, median and most; empty without values."""
        values = self.values
        if not values:
            return {}
        return {
            "mean": fmean(values),
            "std": pstdev(values),
            "min": min(values),
            "median": median(values),
            "max": max(values),
        }

    def commonest(self, count: int = 5) -> list[tuple[float, float]]:
        """The values that are most common, with their shares."""
        values = self.values
        return [(value, number / len(values)) for value, number in Counter(values).most_common(count)]


async def report_on(rewards: Sequence[RewardFunction], answers: Answers) -> list[FunctionReport]:
    """Every function over the answers, one after the other so that each has its own time."""
    reports: list[FunctionReport] = []
    for reward in with_unique_names(rewards):
        alone = replace(reward, weight=reward.weight or 1.0)  # one of weight 0 has outcomes too
        await grade([alone], answers.row(0))  # starts its process, loads its model
        began = time.perf_counter()
        grades = await grade([alone], answers)
        seconds = time.perf_counter() - began
        reports.append(_report(reward.name, grades, seconds))
    return reports


def _report(name: str, grades: Sequence[Grade], seconds: float) -> FunctionReport:
    return FunctionReport(
        name=name,
        parts=tuple(grade.parts[name] for grade in grades),
        outcomes=Counter(grade.outcome for grade in grades),
        why=next((grade.why for grade in grades if grade.outcome == "unknown"), ""),
        seconds=seconds,
    )


def agreement_of(one: FunctionReport, other: FunctionReport) -> tuple[float | None, float]:
    """Correlation of two functions (None if one of them is constant), and the share of answers that both pay or both
    do not, on the answers that both graded.

    Example: parts (1, 0, 1) and (2, 0, 0): correlation 0.5, and two of three -> 0.67
    """
    pairs = [(a, b) for a, b in zip(one.parts, other.parts, strict=True) if a is not None and b is not None]
    if not pairs:
        return None, math.nan
    same = fmean((a > 0) == (b > 0) for a, b in pairs)
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    spread = pstdev(first) * pstdev(second)
    if spread == 0:
        return None, same
    mean_a, mean_b = fmean(first), fmean(second)
    return fmean((a - mean_a) * (b - mean_b) for a, b in pairs) / spread, same
