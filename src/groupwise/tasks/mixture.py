"""Several tasks in one run, drawn by weight, each graded by its own rewards.

    [task]
    kind = "mixture"
    [[task.parts]]
    name = "sums"
    weight = 2
    task = { kind = "arithmetic", digits = 2 }
    rewards = [{ function = "correctness" }]
    [[task.parts]]
    name = "riddles"
    task = { kind = "dataset", path = "riddles.jsonl" }
    rewards = [{ function = "riddles.py:judge" }]

A problem knows its part (`Problem.task`, and the column `task`), its id begins with it, and so do the names of the
part's rewards, which grade no other part's rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Any

from groupwise.errors import TaskError
from groupwise.rewards import RewardFunction
from groupwise.tasks.task import Task
from groupwise.types import Problem


@dataclass(frozen=True, slots=True)
class Part:
    """A task of a mixture, how often it is drawn, and what grades it (nothing: the task's own rewards)."""

    name: str
    task: Task
    weight: float = 1.0
    rewards: Sequence[RewardFunction] = ()


def mixture(*, parts: Sequence[Part], system_prompt: str | None = None, seed: int = 0) -> Task:
    """One task of several. Held-out problems are those of all parts in turn, so that the first ones are of every part.

    Example: `mixture(parts=[Part("sums", arithmetic(), 2.0), Part("words", gsm8k())])`
    """
    if system_prompt is not None:
        raise TaskError("task.system_prompt is set beside task.parts: each part has its own, in its task")
    if twice := [name for name, count in Counter(part.name for part in parts).items() if count > 1]:
        raise TaskError(f"two parts of the mixture are called {twice[0]!r}: a part's name is its own")
    if nested := [part.name for part in parts if part.task.parts]:
        raise TaskError(f"the part {nested[0]!r} is a mixture itself: write its parts out")
    if not parts:
        raise TaskError("a mixture of no parts has no problems: give [[task.parts]]")
    tasks = {part.name: part.task for part in parts}
    held_out = [[_named(problem, part.name) for problem in part.task.held_out] for part in parts]
    judged = all(part.task.is_correct is not None for part in parts if part.task.held_out)
    shown = all(part.task.demonstrations is not None for part in parts)
    return Task(
        name="+".join(tasks),
        train=[_named(problem, part.name) for part in parts for problem in part.task.train],
        held_out=[problem for problem in chain(*zip_longest(*held_out)) if problem is not None],
        rewards=tuple(_own(reward, part.name) for part in parts for reward in part.rewards or part.task.rewards),
        is_correct=_Judges(tasks) if judged else None,
        demonstrations=_Demonstrations(tasks) if shown else None,
        parts=tasks,
        weights={part.name: part.weight for part in parts},
    )


def _named(problem: Problem, name: str) -> Problem:
    if "task" in problem.columns:
        raise TaskError(
            f"{name}, problem {problem.id!r} has a column 'task', which in a mixture says what it is part of: rename "
            "it, for example with task.columns"
        )
    return replace(problem, id=f"{name}/{problem.id}", columns={**problem.columns, "task": name}, task=name)


def _own(reward: RewardFunction, name: str) -> RewardFunction:
    return replace(reward, name=f"{name}/{reward.name}", task=name)


@dataclass(frozen=True, slots=True)
class _Judges:
    """Right or wrong by the part's own standard."""

    tasks: Mapping[str, Task]

    def __call__(self, text: str, columns: Mapping[str, Any]) -> bool:
        judge = self.tasks[columns["task"]].is_correct
        return judge is not None and judge(text, columns)


@dataclass(frozen=True, slots=True)
class _Demonstrations:
    tasks: Mapping[str, Task]

    def __call__(self, problem: Problem) -> str:
        show = self.tasks[problem.task].demonstrations
        assert show is not None
        return show(problem)
