"""What grading one completion can come to, and whose fault it is.

    a score    the function graded it (None: it does not grade this row)
    Wrong      the answer itself ran into a limit: time, memory, size, a violation. It scores like a wrong answer, for
               leaving it out would teach the model to run into limits
    Unknown    our machinery failed: the function raised, a service was down, a process died for no fault of the text.
               The rollout takes no part in its group's mean, std and gradient, and is counted

A reward function may return `Wrong` and `Unknown` among its numbers:

    def judged(completions, **kwargs):
        return [Unknown("the judge is down") if verdict is None else verdict for verdict in ask(completions)]

One unknown part makes the rollout unknown: what the other parts add up to is no score that siblings can be compared
with. A function of weight 0 only watches, and makes no rollout unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from groupwise.errors import RewardError
from groupwise.rewards.contract import RewardFunction
from groupwise.rewards.log import free_name
from groupwise.types import Outcome


@dataclass(frozen=True, slots=True)
class Wrong:
    """The answer ran into a limit. `score` None: the lowest that the function gave in this batch, and at most 0."""

    why: str
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody knows what the answer is worth, through no fault of its own."""

    why: str


Mark: TypeAlias = float | Wrong | Unknown | None
"""What one function says of one completion."""


@dataclass(frozen=True, slots=True)
class Grade:
    """All that is known of one completion: each function's part, their weighted sum, the outcome and its reason.

    Example: `Grade({"correctness": 2.0, "integer": 0.5}, 2.5, "scored")`
    """

    parts: Mapping[str, float | None]
    reward: float | None
    outcome: Outcome
    why: str = ""


def settled(marks: Sequence[Mark]) -> list[Mark]:
    """The same marks, every `Wrong` with its score: never more than the worst that was given, so that it cannot pay.

    Example: `[-3.0, Wrong("too slow")]` -> `[-3.0, Wrong("too slow", -3.0)]`
    """
    lowest = min([0.0, *(mark for mark in marks if isinstance(mark, float | int))])
    return [Wrong(m.why, lowest) if isinstance(m, Wrong) and m.score is None else m for m in marks]


def graded(marks: Mapping[str, Mark], rewards: Sequence[RewardFunction]) -> Grade:
    """What the marks of all functions for one completion come to.

    Example: `{"maths": Wrong("too slow", 0.0), "format": 0.5}` -> reward 0.5, outcome "wrong"
    """
    counted = {reward.name for reward in with_unique_names(rewards) if reward.weight != 0}
    parts = {name: _part(mark) for name, mark in marks.items()}
    limits = [f"{name}: {mark.why}" for name, mark in marks.items() if isinstance(mark, Wrong)]
    failures = [f"{name}: {mark.why}" for name, mark in marks.items() if isinstance(mark, Unknown) and name in counted]
    if failures:
        return Grade(parts, None, "unknown", "; ".join(failures))
    reward = total(parts, rewards)
    if reward is None:
        return Grade(parts, None, "ungraded")
    return Grade(parts, reward, "wrong" if limits else "scored", "; ".join(limits))


def _part(mark: Mark) -> float | None:
    if isinstance(mark, Wrong):
        return mark.score or 0.0
    return None if isinstance(mark, Unknown) else mark


def total(parts: Mapping[str, float | None], rewards: Sequence[RewardFunction]) -> float | None:
    """Weighted sum of the parts that are not None; None when all of them are: then nobody graded the row.

    Example: weights 1 and 0.5, parts 2.0 and None -> 2.0; parts None and None -> None
    """
    graded = [(r, part) for r in with_unique_names(rewards) if (part := parts.get(r.name)) is not None]
    if not graded:
        return None
    reward = sum(r.weight * part for r, part in graded)
    if not math.isfinite(reward):
        told = ", ".join(f"{r.weight} * {r.name} = {part}" for r, part in graded)
        raise RewardError(f"the weighted sum of rewards is {reward} ({told}): lower the weights")
    return reward


def with_unique_names(rewards: Sequence[RewardFunction]) -> tuple[RewardFunction, ...]:
    """The same functions, those whose name is taken renamed: `score`, `score` -> `score`, `score_2`."""
    named: dict[str, RewardFunction] = {}
    for reward in rewards:
        name = free_name(reward.name, named)
        named[name] = reward if name == reward.name else replace(reward, name=name)
    return tuple(named.values())
