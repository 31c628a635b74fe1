"""Grade a batch with several reward functions, and add the parts up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from groupwise.rewards.call import call
from groupwise.rewards.contract import Answers, RewardFunction, TrainerState
from groupwise.rewards.invoke import is_async
from groupwise.rewards.isolated import draws
from groupwise.rewards.isolated.place import lane
from groupwise.rewards.log import GradingLog
from groupwise.rewards.outcomes import Grade, Mark, graded, with_unique_names


async def grade(
    rewards: Sequence[RewardFunction],
    answers: Answers,
    *,
    trainer_state: TrainerState | None = None,
    log: GradingLog | None = None,
) -> list[Grade]:
    """What every row comes to, such as `[Grade({"correctness": 2.0, "integer": 0.5}, 2.5, "scored"), ...]`.

    Every function is called once with the whole batch, none of them in the caller's thread. Plain functions of this
    process run one after the other in the order of the list, then its async ones together; the functions of each file
    or module that has a process of its own run beside them. Functions that share a name get numbers (see
    `with_unique_names`).
    """
    if not len(answers):
        return []
    named = with_unique_names(rewards)
    state, notes = trainer_state or TrainerState(), log if log is not None else GradingLog()
    logs = {reward.name: GradingLog() for reward in named}
    marks: dict[str, list[Mark]] = {}

    async def one_after_another(some: Sequence[RewardFunction]) -> None:
        for reward in some:
            marks[reward.name] = await _on_its_rows(reward, answers, state, logs[reward.name])

    async def of_this_process() -> None:
        mine = [reward for reward in named if lane(reward) is None]
        with draws.apart():
            await one_after_another([reward for reward in mine if not is_async(reward.function)])
            await _all(one_after_another([reward]) for reward in mine if is_async(reward.function))

    async def of_another(some: Sequence[RewardFunction], seeds: random.Random) -> None:
        draws.in_lane(seeds)
        await one_after_another(some)

    lanes: dict[str, list[RewardFunction]] = {}
    for reward in named:
        if (key := lane(reward)) is not None:
            lanes.setdefault(key, []).append(reward)
    others = [of_another(some, draws.new_lane()) for some in lanes.values()]
    await _all([of_this_process(), *others])
    for reward in named:  # in the order of the list, whoever was first
        notes.add(logs[reward.name], range(len(answers)), len(answers))
    return [graded({reward.name: marks[reward.name][row] for reward in named}, named) for row in range(len(answers))]


async def _on_its_rows(reward: RewardFunction, answers: Answers, state: TrainerState, log: GradingLog) -> list[Mark]:
    """A mark per row: None where the row is of another task."""
    its = [row for row in range(len(answers)) if not reward.task or answers.tasks[row] == reward.task]
    if len(its) == len(answers):
        return await call(reward, answers, state, log)
    marks: list[Mark] = [None] * len(answers)
    if its:
        notes = GradingLog()
        for row, mark in zip(its, await call(reward, answers.rows(its), state, notes), strict=True):
            marks[row] = mark
        log.add(notes, its, len(answers))
    return marks


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Let all of it end before the first failure is raised: none is left running behind the caller's back."""
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
