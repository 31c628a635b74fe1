"""`groupwise reward replay RUN`: the recorded rollouts graded again, and what the advantages would have been."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from groupwise.errors import RewardError

if TYPE_CHECKING:
    from groupwise.learner.algorithm import Algorithm
    from groupwise.rewards import RewardFunction
    from groupwise.runs.rollouts import RolloutRow
    from groupwise.types import Group


def replayed(run: str, functions: Sequence[str]) -> Iterator[str]:
    """A line per step: the reward as it was and as it would have been, and how the advantages differ."""
    from groupwise.cli.reward_sources import functions_of, recorded
    from groupwise.learner.algorithm import Algorithm
    from groupwise.rewards import load_reward, with_unique_names
    from groupwise.runs.folder import RunFolder

    folder = RunFolder.open(Path(run).expanduser())
    loaded = folder.recipe()
    if functions:
        rewards = [reward for name in functions for reward in functions_of(name)]
    else:
        own = loaded.recipe.rewards
        if not own or any(section.function.startswith("(in memory)") for section in own):
            raise RewardError(f"{run} does not record reward functions that could be called again: name --function")
        rewards = [load_reward(s.function, s.weight, s.settings, loaded.folder, **s.handling) for s in own]
    rewards = with_unique_names(rewards)
    algorithm = Algorithm.of(loaded.recipe.algorithm, loaded.recipe.sampling.max_new_tokens, loaded.folder)
    algorithm = replace(algorithm, reward_weights={reward.name: reward.weight for reward in rewards})
    yield f"{run} with {', '.join(reward.name for reward in rewards)}"
    yield f"{'step':>6}  {'reward was':>10}  {'would be':>10}  {'groups that teach':>17}  {'advantages'}"
    agreed: list[tuple[float, float]] = []
    for step, rows in groupby(recorded(run), key=lambda row: row.step):
        line, pairs = asyncio.run(_step(step, list(rows), rewards, algorithm))
        agreed += pairs
        yield line
    yield f"over all {len(agreed):,} rollouts: {_compared(agreed)}"


async def _step(
    step: int, rows: list[RolloutRow], rewards: Sequence[RewardFunction], algorithm: Algorithm
) -> tuple[str, list[tuple[float, float]]]:
    from groupwise.rewards import TrainerState
    from groupwise.rollouts.grade import graded

    groups = [_group(list(of_group)) for _, of_group in groupby(rows, key=lambda row: row.group)]
    again = await graded(groups, rewards, trainer_state=TrainerState(global_step=step))
    advantages = [value for group in algorithm.advantages(again) for value in group]
    was = [row.reward for row in rows if row.reward is not None]
    now = [reward for group in again for reward in group.rewards_G if reward is not None]
    pairs = [(row.advantage, value) for row, value in zip(rows, advantages, strict=True)]
    sizes = [len(group.rollouts) for group in groups]
    line = (
        f"{step:>6}  {_mean(was):>10}  {_mean(now):>10}  "
        f"{f'{_teaching([a for a, _ in pairs], sizes)} -> {_teaching(advantages, sizes)}':>17}  {_compared(pairs)}"
    )
    return line, pairs


def _group(rows: list[RolloutRow]) -> Group:
    from groupwise.cli.reward_sources import prompt_of
    from groupwise.types import Completion, Group, Problem, Rollout

    first = rows[0]
    rollouts = tuple(
        Rollout(
            Completion(row.token_ids, row.logprobs, "stop" if row.finish_reason == "stop" else "length", row.text),
        )
        for row in rows
    )
    return Group(Problem(first.problem_id, prompt_of(first.prompt), first.columns), first.prompt_ids, rollouts)


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.4g}" if values else "-"


def _teaching(advantages: Sequence[float], sizes: Sequence[int]) -> int:
    """Groups with an advantage that is not 0."""
    values = iter(advantages)
    return sum([next(values) != 0 for _ in range(size)].count(True) > 0 for size in sizes)


def _compared(pairs: Sequence[tuple[float, float]]) -> str:
    """How two lists of advantages go together."""
    both = [(a, b) for a, b in pairs if a != 0 or b != 0]
    if not both:
        return "all zero, as before"
    turned = fmean(a * b < 0 for a, b in both)
    length = math.sqrt(sum(a * a for a, _ in both) * sum(b * b for _, b in both))
    cosine = sum(a * b for a, b in both) / length if length else 0.0
    return f"cosine {cosine:+.2f}, {turned:.0%} change their sign"
