"""What a step looked like: seconds by phase, and the numbers that go into metrics.jsonl and on the screen."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from statistics import fmean, stdev

from groupwise.learner.report import UpdateReport
from groupwise.rewards import GradingLog
from groupwise.rewards.log import free_name
from groupwise.training.deadlines import Deadlines
from groupwise.types import Group, Rollout


class StepReport:
    """Collects while a step runs.

    Example: `with report.timed("sample"): ...` and at the end `report.metrics()["seconds/sample"]`
    """

    def __init__(self, deadlines: Deadlines | None = None, whom: Mapping[str, str] | None = None) -> None:
        self._deadlines, self._whom = deadlines, whom or {}
        self._seconds: dict[str, float] = {}
        self._metrics: dict[str, float] = {}
        self.graded = GradingLog()
        """What reward functions logged beside their rewards."""

    @contextmanager
    def timed(self, phase: str) -> Generator[None]:
        """Add the seconds inside to `phase`, which has a deadline."""
        start = time.perf_counter()
        watched = (
            nullcontext() if self._deadlines is None else self._deadlines.waiting(phase, self._whom.get(phase, phase))
        )
        try:
            with watched:
                yield
        finally:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + time.perf_counter() - start

    def observe_groups(self, groups: Sequence[Group]) -> None:
        """Rewards, lengths, and how many groups teach nothing."""
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        graded = [[r for r in group.rewards_G if r is not None] for group in groups]
        rewards = [reward for rewards_G in graded for reward in rewards_G]
        lengths = [len(rollout.completion.token_ids) for rollout in rollouts]
        self._metrics |= {
            "reward": fmean(rewards) if rewards else math.nan,
            "reward_std": fmean([stdev(g) if len(g) > 1 else 0.0 for g in graded]),
            "zero_signal": fmean([all(r.advantage == 0 for r in group.rollouts) for group in groups]),
            "ungraded": fmean([_is_ungraded(rollout) for rollout in rollouts]),
            "unknown": fmean([rollout.outcome == "unknown" for rollout in rollouts]),
            "hit_a_limit": fmean([rollout.outcome == "wrong" for rollout in rollouts]),
            "length": fmean(lengths),
            "length_max": float(max(lengths)),
            "truncated": fmean([rollout.completion.finish_reason == "length" for rollout in rollouts]),
            "looped": fmean([rollout.completion.finish_reason == "loop" for rollout in rollouts]),
            "sampled_tokens": float(sum(rollout.completion.drawn for rollout in rollouts)),
            **_of_conversations(rollouts),
            **_of_tasks(groups),
        }
        for name in rollouts[0].reward_parts:
            parts = [part for r in rollouts if (part := r.reward_parts[name]) is not None]
            if parts:
                self._metrics[f"rewards/{name}/mean"] = fmean(parts)
                self._metrics[f"rewards/{name}/std"] = stdev(parts) if len(parts) > 1 else 0.0

    def observe_selection(self, groups: Sequence[Group], dropped: Sequence[Group], rounds: int) -> None:
        """What choosing among groups cost: rounds of sampling, groups sampled, and the shares of groups and of tokens
        that were sampled and then dropped."""
        tokens = [sum(len(r.completion.token_ids) for r in group.rollouts) for group in groups]
        wasted = sum(len(r.completion.token_ids) for group in dropped for r in group.rollouts)
        self._metrics |= {
            "selection/rounds": float(rounds),
            "selection/groups": float(len(groups)),
            "selection/dropped": len(dropped) / len(groups),
            "selection/dropped_tokens": wasted / max(sum(tokens), 1),
        }

    def observe_update(self, update: UpdateReport) -> None:
        """Loss, gradient norm, ratios, KL."""
        self._metrics |= update.metrics()

    def metrics(self) -> dict[str, float]:
        """Everything by name. `tokens_per_second` counts sampled tokens over the whole step. A metric that a reward
        function logged under a name of ours gets a number."""
        seconds = sum(self._seconds.values())
        sampled = self._metrics.get("sampled_tokens", 0.0)
        metrics = {
            **self._metrics,
            "step_seconds": seconds,
            "tokens_per_second": sampled / seconds if seconds else 0.0,
            **{f"seconds/{phase}": value for phase, value in self._seconds.items()},
        }
        for name, value in self.graded.metrics.items():
            metrics[free_name(name, (*metrics, "step"))] = value
        return metrics


def _is_ungraded(rollout: Rollout) -> bool:
    return rollout.reward is None and rollout.outcome != "unknown"


def _of_tasks(groups: Sequence[Group]) -> dict[str, float]:
    """In a mixture: each task's share of the groups, its mean reward and length."""
    metrics: dict[str, float] = {}
    for name in dict.fromkeys(group.problem.task for group in groups if group.problem.task):
        its = [group for group in groups if group.problem.task == name]
        rewards = [reward for group in its for reward in group.rewards_G if reward is not None]
        lengths = [len(rollout.completion.token_ids) for group in its for rollout in group.rollouts]
        metrics[f"tasks/{name}/share"] = len(its) / len(groups)
        metrics[f"tasks/{name}/length"] = fmean(lengths)
        if rewards:
            metrics[f"tasks/{name}/reward"] = fmean(rewards)
    return metrics


def _of_conversations(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Turns of the model, the share of tokens that an environment said, and of environments that failed."""
    if not any(rollout.completion.own or rollout.completion.failure for rollout in rollouts):
        return {}
    done = [rollout.completion for rollout in rollouts]
    tokens = sum(len(completion.token_ids) for completion in done)
    return {
        "turns": fmean([sum(m["role"] == "assistant" for m in completion.messages) for completion in done]),
        "environment_tokens": 1 - sum(completion.drawn for completion in done) / max(tokens, 1),
        "environment_failures": fmean([bool(completion.failure) for completion in done]),
    }


def about_ungraded(groups: Sequence[Group]) -> str | None:
    """A sentence about the completions for which every reward function returned None; None if there are none."""
    ungraded = [group.problem.id for group in groups for rollout in group.rollouts if _is_ungraded(rollout)]
    if not ungraded:
        return None
    return (
        f"no reward function graded {len(ungraded):,} of the {sum(len(group.rollouts) for group in groups):,} "
        f"completions of this step, the first of them for the problem {ungraded[0]!r}: nothing is learnt from them. "
        "From here on only the metric `ungraded` tells"
    )
