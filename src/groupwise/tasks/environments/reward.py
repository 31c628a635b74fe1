"""What an environment gave, as one more reward: weight 1, under the environment's name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from groupwise.rewards import RewardFunction, as_reward
from groupwise.tasks.task import Task


def earned(earned: Sequence[float | None]) -> list[float | None]:
    """The sum of a conversation's rewards; None where the environment gave none."""
    return list(earned)


def earned_rewards(task: Task) -> list[RewardFunction]:
    """One for each environment of a task, or of its parts, that gives rewards; it grades its own part only."""
    worlds = {name: one.environment for name, one in (task.parts or {"": task}).items()}
    return [
        replace(as_reward(earned, name=world.name), task=name)
        for name, world in worlds.items()
        if world is not None and world.earns
    ]
