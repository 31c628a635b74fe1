"""Grade a batch with several reward functions, and add the parts up."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from groupwise.errors import RewardError
from groupwise.rewards.call import call, is_async
from groupwise.rewards.contract import Answers, RewardFunction, TrainerState
from groupwise.rewards.log import GradingLog, free_name


async def grade(
    rewards: Sequence[RewardFunction],
    answers: Answers,
    *,
    trainer_state: TrainerState | None = None,
    log: GradingLog | None = None,
) -> list[dict[str, float | None]]:
    """The parts of every row's reward, by function name, as `[{"correctness": 2.0, "integer": 0.5}, ...]`.

    Every function is called once with the whole batch. Plain functions run first, one after the other in the order of
    the list; then the async ones run together. Functions that share a name get numbers (see `with_unique_names`).
    """
    if not len(answers):
        return []
    named = with_unique_names(rewards)
    state, notes = trainer_state or TrainerState(), log if log is not None else GradingLog()
    values: dict[str, list[float | None]] = {}
    for reward in named:
        if not is_async(reward.function):
            values[reward.name] = await call(reward, answers, state, notes)
    together = [reward for reward in named if is_async(reward.function)]
    # Let all of them end before the first failure is raised: none is left running behind the caller's back.
    outcomes = await asyncio.gather(*(call(r, answers, state, notes) for r in together), return_exceptions=True)
    for reward, outcome in zip(together, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            raise outcome
        values[reward.name] = outcome
    return [{reward.name: values[reward.name][row] for reward in named} for row in range(len(answers))]


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
