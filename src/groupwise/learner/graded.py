"""What advantages look at, of the groups of a step: of all ranks, where there are several.

Each rank holds whole groups, so a group's mean is its own affair; the std of the step, or the number of its groups that
say something, is everybody's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from groupwise.learner.world import World
from groupwise.types import Group, Rollout


@dataclass(frozen=True, slots=True)
class Graded:
    """Rewards, lengths and reward parts, one inner list for each group, and the weights of the reward functions.

    Example: `advantage(**graded.data())`
    """

    rewards_QG: list[list[float | None]]
    lengths_QG: list[list[int]]
    parts_QG: list[list[Mapping[str, float | None]]]
    reward_weights: Mapping[str, float]

    @classmethod
    def of(cls, groups: Sequence[Group], weights: Mapping[str, float]) -> Graded:
        """As the groups have it; without weights each reward function counts once."""
        parts_QG = [[_parts(rollout) for rollout in group.rollouts] for group in groups]
        names = (name for parts_G in parts_QG for parts in parts_G for name in parts)
        return cls(
            rewards_QG=[list(group.rewards_G) for group in groups],
            lengths_QG=[[rollout.completion.drawn for rollout in group.rollouts] for group in groups],
            parts_QG=parts_QG,
            reward_weights=weights or dict.fromkeys(names, 1.0),
        )

    def data(self) -> dict[str, object]:
        """By the names that entries know."""
        return {
            "rewards_QG": self.rewards_QG,
            "lengths_QG": self.lengths_QG,
            "parts_QG": self.parts_QG,
            "reward_weights": self.reward_weights,
        }

    def of_all(self, world: World) -> tuple[Graded, slice]:
        """The groups of all ranks, rank after rank, and which of them are one's own."""
        own = slice(len(self.rewards_QG))
        if world.size == 1:
            return self, own
        names = list(self.reward_weights)
        rows = [
            [_number(reward), length, *(_number(parts.get(name)) for name in names)]
            for group in zip(self.rewards_QG, self.lengths_QG, self.parts_QG, strict=True)
            for reward, length, parts in zip(*group, strict=True)
        ]
        width = 2 + world.largest(len(names))  # a rank without groups need not know the names
        found = world.gather(torch.tensor(rows, dtype=torch.float64).reshape(-1, width))[0].tolist()
        sizes, first = world.gather(torch.tensor([len(rewards_G) for rewards_G in self.rewards_QG], dtype=torch.long))
        each = iter(found)
        rows_QG = [list(islice(each, size)) for size in sizes.tolist()]
        everyone = Graded(
            rewards_QG=[[_reward(row[0]) for row in rows_G] for rows_G in rows_QG],
            lengths_QG=[[int(row[1]) for row in rows_G] for rows_G in rows_QG],
            parts_QG=[[dict(zip(names, map(_reward, row[2:]), strict=False)) for row in rows_G] for rows_G in rows_QG],
            reward_weights=self.reward_weights,
        )
        return everyone, slice(first, first + own.stop)


def _parts(rollout: Rollout) -> Mapping[str, float | None]:
    """Without the parts of a rollout whose grade is unknown: what one function says must not move the others' mean."""
    known = rollout.reward is not None
    return {name: part if known else None for name, part in rollout.reward_parts.items()}


def _number(reward: float | None) -> float:
    return math.nan if reward is None else reward


def _reward(number: float) -> float | None:
    return None if math.isnan(number) else number
