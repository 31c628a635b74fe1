"""One step for its time, and what the base model can do before it is trained.

    calibration = run_to_end(calibrate(parts))
    calibration.step_seconds      12.4
    calibration.verdict           Verdict("learnable", "63% of 16 groups have both ...")

The step is a real one, on the recipe's own problems, with the update: the policy is another one afterwards, and is to
be thrown away. Where a whole step would take too long, a part of its problems is taken and the time scaled.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, TypeAlias

from groupwise.engines.embedded import EmbeddedEngine
from groupwise.learner.learner import Learner
from groupwise.rewards import TrainerState
from groupwise.rollouts.rollouts import Rollouts
from groupwise.training.build import Parts
from groupwise.training.problems import Epochs
from groupwise.training.statistics import Estimate, pass_at_k
from groupwise.training.step import with_advantages
from groupwise.types import Group, Problem

Word: TypeAlias = Literal["learnable", "too hard", "already solved"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether GRPO can learn from these problems with this policy, and why."""

    word: Word
    why: str


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the steps showed. `problems` of a step's problems were sampled for the time."""

    step_seconds: float
    sample_seconds: float
    problems: int
    total_seconds: float
    pass_1: Estimate | None
    pass_group: Estimate | None
    signal: float
    reward: float
    baseline_problems: int

    @property
    def verdict(self) -> Verdict:
        """By the share of groups that differ within themselves; where none does, by how they are alike."""
        share = f"{self.signal:.0%} of {self.baseline_problems} groups have both better and worse completions"
        if self.signal >= 0.1:
            return Verdict("learnable", share)
        right = self.reward if self.pass_1 is None else self.pass_1.value
        if right >= 0.5:
            return Verdict("already solved", f"{share}, and most are right: little is left to learn. Take harder ones")
        return Verdict(
            "too hard",
            f"{share}, and most are wrong: nearly nothing would be learnt. Take easier problems, a larger "
            "train.group_size, a stronger model.id, or begin with demonstrations (groupwise sft)",
        )


async def calibrate(
    parts: Parts, engine: EmbeddedEngine, learner: Learner, rollouts: Rollouts, *, most_seconds: float = 90.0
) -> Calibration:
    """Two problems to warm up, then a step, or as much of it as `most_seconds` allow."""
    recipe = parts.recipe
    wanted = recipe.train.prompts_per_step
    problems = Epochs(parts.train.problems, recipe.seed)
    warm = min(2, wanted)
    first, _ = await _timed(parts, engine, learner, rollouts, problems.batch(0, warm), 1)
    affordable = max(int(most_seconds / max(sum(first) / warm, 1e-6)), warm)
    number = min(wanted, affordable)
    (sampling, learning), groups = await _timed(parts, engine, learner, rollouts, problems.batch(warm, number), 2)
    scale = wanted / number
    step = (sampling + learning) * scale
    return Calibration(
        step_seconds=step,
        sample_seconds=sampling * scale,
        problems=number,
        total_seconds=step * recipe.train.steps + _evaluations(parts, sampling / number / recipe.train.group_size),
        pass_1=_pass_at(parts, groups, 1),
        pass_group=_pass_at(parts, groups, recipe.train.group_size),
        signal=1 - sum(map(_is_alike, groups)) / len(groups),
        reward=fmean([r for group in groups for r in group.rewards_G if r is not None] or [0.0]),
        baseline_problems=len(groups),
    )


async def _timed(
    parts: Parts, engine: EmbeddedEngine, learner: Learner, rollouts: Rollouts, problems: Sequence[Problem], step: int
) -> tuple[tuple[float, float], list[Group]]:
    """Seconds of sampling and grading, and of learning; and the groups, graded."""
    start = time.perf_counter()
    groups = await rollouts.sample(problems, step)
    groups = await rollouts.grade(groups, TrainerState(step, parts.recipe.train.steps))
    middle = time.perf_counter()
    penalties = learner.penalties(groups, sampler_is_exact=engine.exact)
    groups = with_advantages(groups, parts.algorithm, penalties)
    await learner.update(groups, sampler_is_exact=engine.exact)
    return (middle - start, time.perf_counter() - middle), groups


def _is_alike(group: Group) -> bool:
    return len({reward for reward in group.rewards_G if reward is not None}) <= 1


def _pass_at(parts: Parts, groups: Sequence[Group], k: int) -> Estimate | None:
    """None for a task that has no answers to compare with."""
    judge, size = parts.task.is_correct, parts.recipe.train.group_size
    if judge is None:
        return None
    return pass_at_k([(size, sum(judge(r.completion.text, g.problem.columns) for r in g.rollouts)) for g in groups], k)


def _evaluations(parts: Parts, seconds_per_completion: float) -> float:
    """Of all evaluations: greedy answers, and the samples for pass@k."""
    section, steps = parts.recipe.evaluation, parts.recipe.train.steps
    if parts.held_out is None:
        return 0.0
    between = (steps - 1) // section.every if section.every else 0
    answers = len(parts.held_out.problems) * (1 + (section.samples if section.pass_at else 0))
    return (int(section.before) + between + 1) * answers * seconds_per_completion
