"""Advantages: how much better each completion did than the others of its group.

Floats in, floats out, no torch. An entry names what it looks at; lists are of the whole step, one inner list per
problem, and groups may differ in size:

- `rewards_QG`       rewards, `None` where nothing graded the completion
- `lengths_QG`       tokens of each completion
- `parts_QG`         each completion's rewards by the name of the function, `None` where it did not grade
- `reward_weights`   the weight of each of these names

A reward of `None` takes no part in any mean or std, and its advantage is 0: it trains nothing. A group with fewer than
two graded rollouts, or with equal rewards, says nothing about which was better: all 0, exactly. Only `reinforce_pp` and
its baseline form compare with the mean of the whole step, which such a group may be above or below.

Those that look at one group are here, those that look at the whole step in `batch_advantages`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, TypeAlias

from groupwise.errors import RecipeError
from groupwise.maths.batch_advantages import batch_normalized, gdpo, gpg, reinforce_pp, reinforce_pp_baseline
from groupwise.maths.groups import STD_FLOOR, Lengths, Rewards, above_lowest, centred, normalized, placed
from groupwise.maths.tables import Bounds, Share, Table

OfGroup: TypeAlias = Annotated[int, Bounds(at_least=1, below="group_size")]
"""A part of a group."""


def group_normalized(rewards_QG: Rewards) -> list[list[float]]:
    """GRPO: `A = (r - mean) / (std + 1e-4)`, over the group, with Bessel's std (divided by n - 1).

    DeepSeekMath, arXiv 2402.03300, section 4.1.2; the paper does not say which std, and has no floor.

    Example: 4 right of 8, `[[1, 1, 1, 1, 0, 0, 0, 0]]`: mean 0.5, std sqrt(8 * 0.25 / 7) = 0.5345, so
    0.5 / 0.5346 = +0.94 for the right ones and -0.94 for the wrong.
    """
    return [placed(rewards_G, normalized(rewards_G)) for rewards_G in rewards_QG]


def group_centred(rewards_QG: Rewards) -> list[list[float]]:
    """Dr. GRPO: `A = r - mean`, over the group. Without the std, easy and hard problems weigh as their rewards do.

    Understanding R1-Zero-Like Training, arXiv 2503.20783, section 3.2.

    Example: `[[1.0, 0.0, 0.0, 0.0]]` gives `[[0.75, -0.25, -0.25, -0.25]]`.
    """
    return [placed(rewards_G, centred(rewards_G)) for rewards_G in rewards_QG]


def leave_one_out(rewards_QG: Rewards) -> list[list[float]]:
    """RLOO: the reward less the mean of the *others*, `n / (n - 1) * (r - mean)`.

    Back to Basics, arXiv 2402.14740. An unbiased baseline: it does not contain the reward that it is compared with.

    Example: `[[1.0, 0.0, 0.0, 0.0]]` gives `[[1.0, -1/3, -1/3, -1/3]]`.
    """
    return [placed(rewards_G, _against_others(centred(rewards_G))) for rewards_G in rewards_QG]


def _against_others(deviations: list[float]) -> list[float]:
    number = len(deviations)
    return [value * number / max(number - 1, 1) for value in deviations]


def optimal_baseline(rewards_QG: Rewards, lengths_QG: Lengths) -> list[list[float]]:
    """OPO: the reward less the mean weighted by length, `r - sum(length * r) / sum(length)`.

    On-Policy RL with Optimal Reward Baseline, arXiv 2505.23585: the baseline of least variance, if the gradient of a
    completion grows with its length.

    Example: rewards `[[1.0, 0.0]]`, lengths `[[1, 3]]`: baseline 1/4, so `[[0.75, -0.25]]`.
    """
    return [placed(group[0], _against_longest(*group)) for group in zip(rewards_QG, lengths_QG, strict=True)]


def _against_longest(rewards_G: Sequence[float | None], lengths_G: Sequence[int]) -> list[float]:
    lengths = [length for length, reward in zip(lengths_G, rewards_G, strict=True) if reward is not None]
    rewards = above_lowest(rewards_G)
    baseline = math.fsum(map(math.prod, zip(lengths, rewards, strict=True))) / max(sum(lengths), 1)
    return [reward - baseline for reward in rewards]


def maxrl(rewards_QG: Rewards) -> list[list[float]]:
    """MaxRL: `A = (r - mean) / mean`. A rare success on a hard problem counts the more the rarer it is; with rewards of
    0 and 1 this is the gradient of the log of the chance to succeed.

    Maximum Likelihood Reinforcement Learning, arXiv 2602.02710. Rewards must not be negative; a mean of 0 says
    nothing.

    Example: `[[1.0, 0.0, 0.0, 0.0]]`: mean 0.25, so `[[3, -1, -1, -1]]`.
    """
    return [placed(rewards_G, _over_mean(rewards_G)) for rewards_G in rewards_QG]


def _over_mean(rewards_G: Sequence[float | None]) -> list[float]:
    graded = [reward for reward in rewards_G if reward is not None]
    if graded and min(graded) < 0:
        raise RecipeError(
            f'advantage = "maxrl" divides by the mean reward of a group: no reward may be negative, and '
            f"less what length and KL take off one is {min(graded)}. Shift the rewards, or choose another advantage"
        )
    mean = math.fsum(graded) / max(len(graded), 1)
    return [value / mean if mean > 0 else 0.0 for value in centred(rewards_G)]


def pass_at_k(rewards_QG: Rewards, *, k: OfGroup = 4) -> list[list[float]]:
    """The best of k completions is what counts: every subset of k is rewarded with its best, normalised over all
    subsets (population std), and a completion gets the mean of the subsets that it is in.

    Pass@k Training, arXiv 2508.10751, whose closed form this is, for rewards of any kind. In a group where k or fewer
    were graded there is only one subset, which says nothing.

    Example: `[[1, 0, 0, 0]]`, k 2: 3 of 6 pairs succeed, mean 0.5, std 0.5. The right one is in successful pairs only:
    +1. A wrong one is in 1 successful of 3: (1/3 - 0.5) / 0.5 = -1/3.
    """
    return [placed(rewards_G, _best_of(above_lowest(rewards_G), k)) for rewards_G in rewards_QG]


def _best_of(rewards: list[float], k: int) -> list[float]:
    n = len(rewards)
    if k >= n or max(rewards) == 0:
        return [0.0] * n
    ascending = sorted(range(n), key=rewards.__getitem__)
    values = [rewards[i] for i in ascending]
    # The j-th smallest is the best of C(j, k-1) subsets; beside a given smaller one, of C(j-1, k-2).
    is_best = [math.comb(j, k - 1) / math.comb(n, k) for j in range(n)]
    mean = math.fsum(map(math.prod, zip(is_best, values, strict=True)))
    std = math.sqrt(math.fsum(chance * (value - mean) ** 2 for chance, value in zip(is_best, values, strict=True)))
    advantages = [0.0] * n
    for place, i in enumerate(ascending):
        own = math.comb(place, k - 1) * values[place]
        others = [math.comb(j - 1, k - 2) * values[j] for j in range(place + 1, n)] if k > 1 else []
        advantages[i] = (math.fsum([own, *others]) / math.comb(n - 1, k - 1) - mean) / (std + STD_FLOOR)
    return advantages


def shortest(rewards_QG: Rewards, lengths_QG: Lengths, *, keep: Share = 0.5) -> list[list[float]]:
    """GFPO: only the shortest completions of a group train, normalised among themselves; the others get 0. Sample more
    of them to think less.

    Group Filtered Policy Optimization, arXiv 2508.09726, filtered by length. `keep` is the share that trains, rounded
    up, at least two; of equally long ones the earlier.

    Example: rewards `[[1, 1, 0, 0]]`, lengths `[[9, 2, 5, 7]]`, keep 0.5: the second and third train, +0.71 and -0.71.
    """
    return [_of_shortest(*group, keep) for group in zip(rewards_QG, lengths_QG, strict=True)]


def _of_shortest(rewards_G: Sequence[float | None], lengths_G: Sequence[int], keep: float) -> list[float]:
    graded = sorted((length, i) for i, length in enumerate(lengths_G) if rewards_G[i] is not None)
    kept = {i for _, i in graded[: max(math.ceil(keep * len(graded)), 2)]}
    left_G = [reward if i in kept else None for i, reward in enumerate(rewards_G)]
    return placed(left_G, normalized(left_G))


ADVANTAGES: Table[list[list[float]]] = Table(
    "advantage",
    {
        "group_normalized": group_normalized,
        "group_centred": group_centred,
        "batch_normalized": batch_normalized,
        "leave_one_out": leave_one_out,
        "reinforce_pp": reinforce_pp,
        "reinforce_pp_baseline": reinforce_pp_baseline,
        "gdpo": gdpo,
        "optimal_baseline": optimal_baseline,
        "maxrl": maxrl,
        "pass_at_k": pass_at_k,
        "gpg": gpg,
        "shortest": shortest,
    },
    offers=("rewards_QG", "lengths_QG", "parts_QG", "reward_weights"),
)
