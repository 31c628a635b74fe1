"""What a step's completions look like from outside, for the alarms: repeating, solved, unusually rewarded.

signs(groups)      {"repetition": 0.02, "solved": 0.25, "reward_size": 2.5}
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from groupwise.types import Group, Rollout

_SHORTEST, _RATIO = 200, 0.15
"""A text of 200 bytes and more that deflates below 0.15 of its size is going round in circles: prose of that length
deflates to 0.5 and above, a table of numbers to 0.3."""


def signs(groups: Sequence[Group]) -> dict[str, float]:
    """Metrics of a step: `repetition`, the share of completions that repeat themselves; `solved`, the share of groups
    that are all rewarded alike and above the step's lowest reward; `reward_size`, the largest size of a reward."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    rewards = [reward for group in groups for reward in group.rewards_G if reward is not None]
    found = {"repetition": sum(repeats(r.completion.text) for r in rollouts) / len(rollouts)}
    if rewards:
        found["solved"] = sum(_solved(group, min(rewards)) for group in groups) / len(groups)
        found["reward_size"] = max(abs(reward) for reward in rewards)
    return found


def repeats(text: str) -> bool:
    """Whether the text goes round in circles.

    Example: `repeats("so we have 4 and " * 20)` is True; prose, and a text below 200 bytes, is not.
    """
    plain = text.encode("utf-8", errors="replace")
    return len(plain) >= _SHORTEST and len(zlib.compress(plain)) < _RATIO * len(plain)


def example_of(alarm: str, groups: Sequence[Group]) -> tuple[str, str, Rollout] | None:
    """A completion of the step that shows what the alarm is about: the problem's id, why this one, the rollout."""
    rollouts = [(group.problem.id, rollout) for group in groups for rollout in group.rollouts]
    if alarm == "repetition":
        return next(((p, "it repeats itself", r) for p, r in rollouts if repeats(r.completion.text)), None)
    if alarm == "truncation":
        return next(((p, "it was cut", r) for p, r in rollouts if r.completion.finish_reason == "length"), None)
    graded = [(p, r) for p, r in rollouts if r.reward is not None]
    if not graded:
        return None
    if alarm == "length":
        problem, longest = max(graded, key=lambda pair: len(pair[1].completion.token_ids))
        return problem, "the longest", longest
    problem, best = max(graded, key=lambda pair: abs(pair[1].reward or 0.0))
    return problem, "the largest reward", best


def _solved(group: Group, lowest: float) -> bool:
    rewards = {reward for reward in group.rewards_G if reward is not None}
    return len(rewards) == 1 and rewards != {lowest}
