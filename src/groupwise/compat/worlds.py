"""`tools` and `environment_factory`: the environments of a script, and the task that its rows make with them.

One class serves every row. Of several, `{"shop": Shop, "game": Game}`, a row's column `environment` names its own, and
only the tools of that one are shown in its prompt: so they are the parts of one task, drawn in the order of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from groupwise.errors import TaskError
from groupwise.tasks import Task, World
from groupwise.tasks.rows import to_problems
from groupwise.training.talk import given_world
from groupwise.types import Problem

COLUMN = "environment"


def worlds_given(tools: Any, factory: Any) -> dict[str, World]:
    """By the name that rows use; the only one has none."""
    extra = tools or ()
    if not isinstance(factory, Mapping):
        world = given_world(extra, factory)
        return {} if world is None else {"": world}
    classes = cast("Mapping[str, Callable[[], Any]]", factory)
    if not classes:
        raise TaskError("environment_factory is an empty dict: leave it away, or name a class")
    made = {str(name): given_world(extra, one) for name, one in classes.items()}
    return {name: world for name, world in made.items() if world is not None}


def several(worlds: Mapping[str, World]) -> bool:
    """Whether rows have to say which environment is theirs."""
    return bool(worlds) and "" not in worlds


def problems_of_rows(rows: Iterable[Mapping[str, Any]], prefix: str, worlds: Mapping[str, World]) -> list[Problem]:
    """The problems, each in the part of its environment where there are several."""
    problems = to_problems(rows, prefix)
    return [_placed(problem, worlds) for problem in problems] if several(worlds) else problems


def task_of_rows(rows: Sequence[Mapping[str, Any]], worlds: Mapping[str, World]) -> Task:
    """The task of a script with several environments."""
    problems = problems_of_rows(rows, "rows/train", worlds)
    of = {name: [problem for problem in problems if problem.task == name] for name in worlds}
    parts = {name: Task(name, its, [], environment=worlds[name]) for name, its in of.items() if its}
    return Task("rows", problems, [], parts=parts)


def _placed(problem: Problem, worlds: Mapping[str, World]) -> Problem:
    named = problem.columns.get(COLUMN)
    if named not in worlds:
        raise TaskError(
            f"{problem.id}: environment_factory has {', '.join(worlds)}, and the column {COLUMN!r} of this row says "
            f"{named!r}: it has to name one of them"
        )
    return replace(problem, task=str(named))
