"""A step's groups and numbers under TRL's names, so that dashboards and scripts that read `log_history` go on reading.

grpo_metrics(groups, metrics, tokens=51_200)["completions/clipped_ratio"]      0.125
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from groupwise.types import Group, Rollout

UPDATED = {
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "entropy": "entropy",
    "kl": "kl",
    "clip_low": "clip_ratio/low_mean",
    "clip_high": "clip_ratio/high_mean",
    "coefficient/entropy": "entropy_coef",
    "step_seconds": "step_time",
    "sampler_gap": "sampling/sampling_logp_difference/max",
}
"""Ours, and what TRL calls them."""

ABSENT = {
    "aux_loss": "there is no loss for routers",
    "clip_ratio/low_min": "the least clipped sequence of a micro-batch: micro-batches are packed anew here",
    "clip_ratio/high_max": "the most clipped one, likewise",
    "cispo_clip_ratio": "it keeps the gradient of every token, so that there is none that is stopped",
    "vespo/phi_seq_mean": "a weight that is its own explanation has no clip to count",
    "sampling/sampling_logp_difference/mean": "sampler and learner are one function; .../max is the gap that is left",
    "sampling/importance_sampling_ratio/min": "nothing is sampled by vLLM",
    "sampling/importance_sampling_ratio/mean": "nothing is sampled by vLLM",
    "sampling/importance_sampling_ratio/max": "nothing is sampled by vLLM",
}
"""What TRL logs and this does not, and why."""


def tool_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """How often tools were called, by completion, and which share of the calls came to nothing; where there are any."""
    said = [str(m["content"]) for r in rollouts for m in r.completion.messages if m["role"] == "tool"]
    if not any(rollout.completion.messages for rollout in rollouts):
        return {}
    failed = sum(text.startswith("error: ") for text in said)
    return {
        "tools/call_frequency": len(said) / len(rollouts),
        "tools/failure_frequency": failed / len(said) if said else 0.0,
    }


def group_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """What was sampled and what it was worth; the same in training and in evaluation."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    lengths = [len(rollout.completion.token_ids) for rollout in rollouts]
    ended = [len(r.completion.token_ids) for r in rollouts if r.completion.finish_reason == "stop"]
    rewards = [rollout.reward for rollout in rollouts if rollout.reward is not None]
    metrics = {
        **_spread("completions/{}_length", lengths),
        **_spread("completions/{}_terminated_length", ended or [0]),
        "completions/clipped_ratio": 1 - len(ended) / len(rollouts),
        "reward": fmean(rewards) if rewards else math.nan,
        "reward_std": stdev(rewards) if len(rewards) > 1 else math.nan,
        "frac_reward_zero_std": fmean([_all_the_same(group) for group in groups]),
        **tool_metrics(rollouts),
    }
    for name in rollouts[0].reward_parts:
        parts = [part for rollout in rollouts if (part := rollout.reward_parts[name]) is not None]
        metrics[f"rewards/{name}/mean"] = fmean(parts) if parts else math.nan
        metrics[f"rewards/{name}/std"] = stdev(parts) if len(parts) > 1 else math.nan
    return metrics


def step_metrics(groups: Sequence[Group], metrics: Mapping[str, float], tokens: int) -> dict[str, float]:
    """A training step. `tokens`: prompt and completion tokens so far, each prompt counted once per completion."""
    named = {theirs: metrics[ours] for ours, theirs in UPDATED.items() if ours in metrics}
    known = {"loss", *UPDATED, *(name for name in metrics if name.startswith(("rewards/", "seconds/", "mismatch/")))}
    own = {name: value for name, value in metrics.items() if name not in {*known, *_OURS}}
    loss = metrics.get("loss", math.nan)
    clipped = metrics.get("clip_low", 0.0) + metrics.get("clip_high", 0.0)
    return {
        "loss": loss,
        **named,
        "num_tokens": float(tokens),
        **group_metrics(groups),
        "policy_loss": loss,
        "clip_ratio/region_mean": clipped,
        **own,
    }


_OURS = frozenset(
    {
        *("reward", "reward_std", "zero_signal", "ungraded", "length", "length_max", "truncated", "ratio"),
        *("sampled_tokens", "trained_tokens", "tokens_per_second"),
    }
)
"""Metrics of ours that TRL's say, too; what is left are those of reward functions (`log_metric`)."""


def tokens_of(groups: Sequence[Group]) -> int:
    """Prompt and completion tokens, as TRL counts them: a prompt once for each of its completions."""
    return sum(len(group.prompt_ids) + len(r.completion.token_ids) for group in groups for r in group.rollouts)


def averaged(rows: Sequence[Mapping[str, float]]) -> dict[str, float | None]:
    """The means over the steps since the last log; a number that no step has is None, `num_tokens` is the last."""
    names = dict.fromkeys(name for row in rows for name in row)
    means: dict[str, float | None] = {}
    for name in names:
        values = [row[name] for row in rows if name in row and not math.isnan(row[name])]
        means[name] = None if not values else values[-1] if name in ("num_tokens", "learning_rate") else fmean(values)
    return means


def _spread(name: str, values: Sequence[int]) -> dict[str, float]:
    return {
        name.format("mean"): fmean(values),
        name.format("min"): float(min(values)),
        name.format("max"): float(max(values)),
    }


def _all_the_same(group: Group) -> float:
    rewards = [reward for reward in group.rewards_G if reward is not None]
    return float(len(rewards) < 2 or stdev(rewards) < 1e-8)
