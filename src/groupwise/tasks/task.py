"""What a task is: problems to train on, problems to be judged by, and how their answers are graded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from groupwise.errors import TaskError
from groupwise.rewards import RewardFunction
from groupwise.tasks.environments.environment import World
from groupwise.types import Problem

IsCorrect: TypeAlias = Callable[[str, Mapping[str, Any]], bool]
"""From a completion's text and its problem's columns to right or wrong."""


@dataclass(frozen=True, slots=True)
class Task:
    """Problems and what belongs to them. No held-out problem is ever trained on.

    `rewards` grade when the recipe names none. `is_correct` is what evaluation counts; None: there is no gold answer
    to compare with. `demonstrations` gives a correct completion of a problem, for the warm start.

    Example: `Task("mine", train=problems[:90], held_out=problems[90:])`
    """

    name: str
    train: Sequence[Problem]
    held_out: Sequence[Problem]
    rewards: tuple[RewardFunction, ...] = ()
    is_correct: IsCorrect | None = None
    system_prompt: str | None = None
    demonstrations: Callable[[Problem], str] | None = None
    environment: World | None = None
    """What the model talks to, turn by turn; None: it answers once."""
    parts: Mapping[str, Task] = field(default_factory=dict[str, "Task"])
    """The tasks of a mixture by name, as `Problem.task` has it; empty: this is one task."""

    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    """How often each part is drawn, relative to the others."""

    def part(self, problem: Problem) -> Task:
        """The task that a problem belongs to."""
        return self.parts.get(problem.task, self)


def system_words(asked: str | None, own: str | None, task: str) -> str | None:
    """The system prompt to use: `"default"` stands for the task's own words."""
    if asked != "default":
        return asked
    if own is None:
        raise TaskError(
            f"task.system_prompt = 'default', but the task {task!r} has no words of its own: write the prompt out, "
            "or leave the setting away"
        )
    return own
