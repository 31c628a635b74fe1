"""Selections: which groups of a step train, and how many further problems have to be sampled for that.

An entry is asked before anything is sampled, and again after every round of sampling, until it wants no more. Floats
in, numbers out, no torch. It names what it looks at:

- `rewards_QG`   rewards of all groups that were sampled in this step so far, `None` where nothing graded a completion
- `wanted`       groups that the step is to train on
- `rounds`       rounds of sampling so far

So whatever refills, oversamples or drops is one function, and the step is a loop around it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from groupwise.maths.groups import Rewards, above_lowest, centred, std_of
from groupwise.maths.tables import Count, Multiple, Range, Table


class Choice(NamedTuple):
    """The groups that train, by their places, and how many further problems are to be sampled before that is settled.

    Example: `Choice([0, 2], 3)`: of the groups so far the first and the third, and three problems more.
    """

    kept: list[int]
    further: int


def everything(rewards_QG: Rewards, wanted: int) -> Choice:
    """Every group that was sampled trains. What says nothing costs its sampling, and counts in the means.

    DeepSeekMath, arXiv 2402.03300, Algorithm 1.

    Example: 8 wanted, none sampled: 8 more; 8 sampled: no more, all are kept.
    """
    return Choice(list(range(len(rewards_QG))), wanted - len(rewards_QG))


def dynamic_sampling(rewards_QG: Rewards, wanted: int, rounds: int, *, max_rounds: Count = 4) -> Choice:
    """DAPO's dynamic sampling: groups whose rewards are all equal are dropped, and further problems are sampled until
    the step is full, in at most `max_rounds` rounds. A round samples as many as will do at the share so far, at most
    `wanted`; what is over at the end is dropped as well. If no group says anything, the first ones stay.

    DAPO, arXiv 2503.14476, section 3.2; verl's `filter_groups`, which samples whole batches.

    Example: 4 wanted, rewards `[[1, 0], [1, 1], [0, 1], [0, 0]]`: two speak, two are missing, of which half will speak:
    4 more.
    """
    speaking = [q for q, rewards_G in enumerate(rewards_QG) if any(above_lowest(rewards_G))]
    return _refilled(speaking, len(rewards_QG), wanted, rounds, max_rounds)


def in_band(
    rewards_QG: Rewards, wanted: int, rounds: int, *, band: Range = (0.2, 0.8), max_rounds: Count = 4
) -> Choice:
    """Online difficulty filtering: groups whose mean reward is outside of `band` are dropped, the others made up for as
    in `dynamic_sampling`. For rewards of 0 and 1 the mean is the pass rate. OpenRLHF's `dynamic_filtering_range`.

    Online Difficulty Filtering for Reasoning Oriented Reinforcement Learning, arXiv 2504.03380.

    Example: 2 wanted, rewards `[[1, 1, 1, 0], [1, 0, 0, 0]]`, band [0.3, 0.8]: the second has 0.25 and is dropped.
    """
    means = [_mean(rewards_G) for rewards_G in rewards_QG]
    inside = [q for q, mean in enumerate(means) if mean is not None and band[0] <= mean <= band[1]]
    return _refilled(inside, len(rewards_QG), wanted, rounds, max_rounds)


def most_varied(rewards_QG: Rewards, wanted: int, *, oversample: Multiple = 2.0) -> Choice:
    """Oversample and keep: `oversample` times as many problems are sampled, at once, and those whose rewards differ
    most train, by the std of the group; of equal ones the earlier.

    VCRL, arXiv 2509.19803, which keeps groups by the variance of their rewards, and has a memory of them besides.

    Example: 1 wanted, oversample 2, rewards `[[1, 1], [1, 0]]`: the second is kept.
    """
    further = math.ceil(wanted * oversample) - len(rewards_QG)
    spread = [std_of(centred(rewards_G)) for rewards_G in rewards_QG]
    ranked = sorted(range(len(spread)), key=lambda q: -spread[q])
    return Choice(sorted(ranked[:wanted]), further)


def _refilled(useful: list[int], sampled: int, wanted: int, rounds: int, max_rounds: int) -> Choice:
    missing = wanted - len(useful)
    if missing <= 0 or rounds >= max_rounds:
        return Choice(useful[:wanted] or list(range(min(wanted, sampled))), 0)
    needed = math.ceil(missing * sampled / len(useful)) if useful else wanted
    return Choice(useful, min(needed, wanted))


def _mean(rewards_G: Sequence[float | None]) -> float | None:
    graded = [reward for reward in rewards_G if reward is not None]
    return math.fsum(graded) / len(graded) if graded else None


SELECTIONS: Table[Choice] = Table(
    "selection",
    {"everything": everything, "dynamic_sampling": dynamic_sampling, "in_band": in_band, "most_varied": most_varied},
    offers=("rewards_QG", "wanted", "rounds"),
)
