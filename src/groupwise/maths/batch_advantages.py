"""Advantages that look at all groups of a step. What they are given is told in `advantages`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from groupwise.maths.groups import (
    STD_FLOOR,
    Lengths,
    Parts,
    Rewards,
    above_lowest,
    centred,
    flat,
    normalized,
    placed,
    std_of,
)


def batch_normalized(rewards_QG: Rewards) -> list[list[float]]:
    """`(r - mean of the group) / (std of the whole step + 1e-4)`: the size of the rewards no longer matters, but groups
    of little difference stay quiet. TRL's `scale_rewards="batch"`.

    Lite PPO, arXiv 2508.08221; ScaleRL, arXiv 2510.13786.

    Example: `[[1, 0], [4, 2]]`: the std of 1, 0, 4, 2 is 1.708, so +-0.293 and +-0.585.
    """
    std = std_of(centred(flat(rewards_QG)))
    return [placed(rewards_G, [value / (std + STD_FLOOR) for value in centred(rewards_G)]) for rewards_G in rewards_QG]


def reinforce_pp(rewards_QG: Rewards, lengths_QG: Lengths) -> list[list[float]]:
    """REINFORCE++: no group at all; the reward, whitened over all *tokens* of the step, of which each carries its
    completion's.

    REINFORCE++, arXiv 2501.03262, with a discount of 1 and the KL, if any, in the reward.

    Example: rewards `[[1, 0]]`, lengths `[[1, 3]]`: mean 1/4, variance 3/16 * 4/3 = 1/4, so +1.5 and -0.5.
    """
    return _whitened(rewards_QG, lengths_QG)


def reinforce_pp_baseline(rewards_QG: Rewards, lengths_QG: Lengths) -> list[list[float]]:
    """REINFORCE++ with a baseline: the reward less the mean of its group, then whitened over all tokens of the step.

    REINFORCE++, arXiv 2501.03262; verl's `reinforce_plus_plus_baseline`, OpenRLHF's `reinforce_baseline`.

    Example: rewards `[[1, 0], [4, 2]]`, one token each: +-0.5 and +-1, of mean 0 and std sqrt(2.5 / 3) = 0.913: +-0.548
    and +-1.095.
    """
    centred_QG: list[list[float | None]] = []
    for rewards_G in rewards_QG:
        values_G = placed(rewards_G, centred(rewards_G))
        centred_QG.append([None if r is None else value for r, value in zip(rewards_G, values_G, strict=True)])
    return _whitened(centred_QG, lengths_QG)


def gdpo(rewards_QG: Rewards, parts_QG: Parts, reward_weights: Mapping[str, float]) -> list[list[float]]:
    """GDPO: each reward function is normalised over the group for itself, then they are summed by weight, and the sum
    is normalised over the whole step. So two rewards of different size are both heard, and completions whose sums
    happen to be equal are told apart. TRL's `normalize_then_sum`.

    Group reward-Decoupled Normalization Policy Optimization, arXiv 2601.05242.

    Example: parts a `[1, 0]` and b `[0, 10]`, weights 1: +-0.707 and -+0.707 add up to 0, where the sum of rewards
    prefers the second.
    """
    summed_QG = [
        _sum_of_normalized(rewards_G, parts_G, reward_weights)
        for rewards_G, parts_G in zip(rewards_QG, parts_QG, strict=True)
    ]
    # What is normalised in every group has the mean 0 over all of them, so there is no mean to take away.
    std = std_of(flat(summed_QG))
    return [[0.0 if value is None else value / (std + STD_FLOOR) for value in summed_G] for summed_G in summed_QG]


def gpg(rewards_QG: Rewards) -> list[list[float]]:
    """GPG: `r - mean` over the group, and all of it scaled by groups / groups that say something: the silent ones count
    in the mean of the loss, and no longer make the others quieter.

    GPG, arXiv 2504.02546, whose batches are such groups. (verl counts rewards that are not 0 instead.)

    Example: `[[1, 0], [1, 1]]`: one of two groups speaks, so `[[1, -1], [0, 0]]`.
    """
    centred_QG = [placed(rewards_G, centred(rewards_G)) for rewards_G in rewards_QG]
    speaking = sum(any(centred_G) for centred_G in centred_QG)
    return [[value * len(centred_QG) / max(speaking, 1) for value in centred_G] for centred_G in centred_QG]


def _sum_of_normalized(
    rewards_G: Sequence[float | None], parts_G: Sequence[Mapping[str, float | None]], weights: Mapping[str, float]
) -> list[float | None]:
    total_G = [0.0] * len(rewards_G)
    for name, weight in weights.items():
        part_G = [parts[name] for parts in parts_G]
        values_G = placed(part_G, normalized(part_G))
        total_G = [total + weight * value for total, value in zip(total_G, values_G, strict=True)]
    return [None if reward is None else total for reward, total in zip(rewards_G, total_G, strict=True)]


def _whitened(rewards_QG: Rewards, lengths_QG: Lengths) -> list[list[float]]:
    """Mean 0 and std 1 over the tokens, each of which carries its completion's reward; measured from the lowest."""
    lengths = [
        length
        for rewards_G, lengths_G in zip(rewards_QG, lengths_QG, strict=True)
        for reward, length in zip(rewards_G, lengths_G, strict=True)
        if reward is not None
    ]
    rewards, tokens = above_lowest(flat(rewards_QG)), sum(lengths)
    mean = math.fsum(map(math.prod, zip(rewards, lengths, strict=True))) / max(tokens, 1)
    squares = math.fsum((reward - mean) ** 2 * length for reward, length in zip(rewards, lengths, strict=True))
    std = math.sqrt(squares / max(tokens - 1, 1))
    values = iter([(reward - mean) / (std + STD_FLOOR) for reward in rewards])
    return [[0.0 if reward is None else next(values) for reward in rewards_G] for rewards_G in rewards_QG]
