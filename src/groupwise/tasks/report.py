"""What is known of a task before anything trains: how many problems, and whether its own gold answers are right.

print(look_at(gsm8k(path="data/gsm8k")))      # 7,473 problems, 1,319 held out · gold answers right: 8,792 of 8,792
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from groupwise.tasks.task import Task
from groupwise.types import Problem


@dataclass(frozen=True, slots=True)
class TaskReport:
    """Numbers of problems; of those with a gold answer, how many are right by the task's own verifier, and the ids of
    those that are not. `judged` is 0 where there is nothing to compare with."""

    name: str
    problems: int
    held_out: int
    judged: int
    wrong: tuple[str, ...]

    @property
    def gold(self) -> float | None:
        """The share of gold answers that are right; None if there are none."""
        return 1 - len(self.wrong) / self.judged if self.judged else None

    def __str__(self) -> str:
        told = f"{self.name}: {self.problems:,} problems, {self.held_out:,} held out"
        if not self.judged:
            return f"{told} · no gold answers to compare with"
        told += f" · gold answers right: {self.judged - len(self.wrong):,} of {self.judged:,}"
        return f"{told} · wrong: {', '.join(self.wrong[:5])}" if self.wrong else told


def look_at(task: Task, limit: int | None = None) -> TaskReport:
    """Judge the gold answers of all problems, or of the first `limit` to train on and as many held out."""
    problems = [*task.train[:limit], *task.held_out[:limit]]
    judged = [(problem, text) for problem in problems if (text := gold_text(task, problem)) is not None]
    wrong = tuple(problem.id for problem, text in judged if not _is_right(task, problem, text))
    return TaskReport(task.name, len(task.train), len(task.held_out), len(judged), wrong)


def gold_text(task: Task, problem: Problem) -> str | None:
    """A completion that states the gold answer; None where the task has none, or cannot judge it."""
    part = task.part(problem)
    if part.is_correct is None:
        return None
    if part.demonstrations is not None:
        return part.demonstrations(problem)
    answer = problem.columns.get("answer")
    return None if answer is None else f"<answer>{answer}</answer>"


def _is_right(task: Task, problem: Problem, text: str) -> bool:
    judge: Callable[..., bool] | None = task.part(problem).is_correct
    assert judge is not None
    return judge(text, problem.columns)
