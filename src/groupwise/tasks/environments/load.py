"""Environments and tools that a recipe names: `file.py:name` beside it, or `package.module:name`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from groupwise.errors import TaskError
from groupwise.tasks.environments.classes import world_of
from groupwise.tasks.environments.environment import World
from groupwise.tasks.environments.tools import with_tools
from groupwise.tasks.named import load_named


def load_world(tools: Sequence[str], environment: str | None, folder: Path) -> World | None:
    """The world of `task.tools` and `task.environment`; None if neither is set.

    Example: `load_world(["tools.py:add"], None, Path("recipes/sums"))`
    """
    functions = [load_named(name, folder, "task.tools") for name in tools]
    if environment is None:
        return with_tools(functions) if functions else None
    factory = load_named(environment, folder, "task.environment")
    if not callable(factory):
        raise TaskError(
            f"task.environment = {environment!r} is a {type(factory).__name__}: name a class, or a function that makes "
            "an object of it"
        )
    return world_of(factory, functions)
