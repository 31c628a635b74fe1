"""Evaluation as TRL has it: G completions for each row at the training temperature, graded, under `eval_` names."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from groupwise.compat.metrics import group_metrics
from groupwise.engines.embedded import EmbeddedEngine
from groupwise.rewards import GradingLog, TrainerState
from groupwise.rollouts.prompts import Fitted
from groupwise.rollouts.rollouts import Rollouts
from groupwise.training.build import Parts, sampling_of
from groupwise.training.talk import conversations_of


async def examine(
    parts: Parts, prompts: Fitted, *, group_size: int, state: TrainerState, prefix: str = ""
) -> dict[str, float | None]:
    """The metrics of these problems, the policy as it is now. `prefix` is the name of one of several data sets.

    Example: `{"eval_reward": 0.31, "eval_rewards/correctness/mean": 0.3, "eval_runtime": 4.2, ...}`
    """
    began = time.perf_counter()
    engine = EmbeddedEngine(parts.policy, parts.recipe.engine.max_rows)
    rollouts = Rollouts(
        engine,
        parts.rewards,
        sampling_of(parts.recipe),
        group_size=group_size,
        prompt_ids=dict(zip((p.id for p in prompts.problems), prompts.prompt_ids, strict=True)),
        seed=parts.recipe.seed,
        conversations=conversations_of(parts, engine),
        sampler=parts.sampler,
    )
    log = GradingLog()
    # A step that no training has: the same rows get the same random numbers at each evaluation.
    groups = await rollouts.grade(await rollouts.sample(prompts.problems, -1), state, log)
    seconds = time.perf_counter() - began
    numbers = {
        **group_metrics(groups),
        **log.metrics,
        "runtime": seconds,
        "samples_per_second": len(groups) * group_size / seconds,
    }
    return {f"eval_{prefix}{name}": None if math.isnan(value) else value for name, value in numbers.items()}


def joined(rows: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    """The metrics of several data sets in one."""
    return {name: value for row in rows for name, value in row.items()}
