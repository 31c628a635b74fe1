"""Environments from a class of the user's: by our protocol, or by TRL's `environment_factory`.

TRL's convention: `reset(**row)` returns None or a text that ends the last user message; every other public method is a
tool; `get_reward()`, where there is one, grades the whole conversation. All of them may be async.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast, runtime_checkable

from groupwise.errors import TaskError
from groupwise.tasks.environments.environment import Environment, Reply, World
from groupwise.tasks.environments.patience import patiently
from groupwise.tasks.environments.tools import Tool, ToolBox, tools_of
from groupwise.types import Problem


@runtime_checkable
class _Resettable(Protocol):
    reset: Callable[..., Any]


@runtime_checkable
class _Graded(Protocol):
    get_reward: Callable[..., Any]


class Hosted(ToolBox):
    """An object by TRL's convention as an environment."""

    def __init__(self, host: Any, extra: Sequence[Tool] = ()) -> None:
        super().__init__([*(Tool.of(method) for method in methods_of(host)), *extra])
        self.host = host

    async def reset(self, problem: Problem) -> str | None:
        """Hand it the row."""
        await super().reset(problem)
        prompt = problem.prompt if isinstance(problem.prompt, str) else [dict(m) for m in problem.prompt]
        said = await _called(self.host.reset, prompt=prompt, **problem.columns)
        if said is not None and not isinstance(said, str):
            raise TaskError(
                f"{type(self.host).__name__}.reset returned a {type(said).__name__}: it has to be a text or None"
            )
        return said

    async def step(self, said: str) -> Reply:
        """Tools first; when no tool is called any more, the reward."""
        reply = await super().step(said)
        return Reply(reply.messages, reply.done)

    async def reward(self) -> float | None:
        """What `get_reward` says; None where there is none, or where it does not grade."""
        given = await _called(self.host.get_reward) if isinstance(self.host, _Graded) else None
        return None if given is None else float(given)


async def _called(function: Callable[..., Any], **given: Any) -> Any:
    return await patiently(function, given)


def methods_of(host: object) -> list[Callable[..., Any]]:
    """Its public methods, `reset` and `get_reward` left out, in alphabetical order. Properties are not read: before a
    reset they may have nothing to say."""
    names = [name for name in dir(host) if not name.startswith("_") and name not in ("reset", "get_reward")]
    found = [getattr(host, name) for name in names if not _is_computed(inspect.getattr_static(host, name))]
    return [method for method in found if inspect.ismethod(method)]


def _is_computed(attribute: object) -> bool:
    return isinstance(attribute, property | functools.cached_property)


def _answers_itself(host: object) -> bool:
    """Whether it is by our protocol. A class by TRL's may have a tool called `step`, but no async one beside an async
    `reset`."""
    by_name = isinstance(host, Environment)
    return by_name and inspect.iscoroutinefunction(host.step) and inspect.iscoroutinefunction(host.reset)


def _check_not_half(probe: object) -> None:
    """By our protocol but for an `async`, its `step` would be taken for a tool and be told to lack a docstring."""
    if isinstance(probe, Environment):
        try:
            Tool.of(probe.step)
        except TaskError as error:
            name = type(probe).__name__
            raise TaskError(
                f"{name}.step is taken for a tool, for {name}.reset and {name}.step are not both async. Write `async "
                f"def` in front of both, if step answers the model. As a tool: {error}"
            ) from error


def world_of(factory: Callable[[], Any], tools: Sequence[Callable[..., Any]] = ()) -> World:
    """The world of a class, or of a function that makes objects of it. One is made here to see what it is.

    Example: `world_of(Guess)`, `world_of(lambda: Shop(seed=3), tools=[add])`
    """
    try:
        probe = factory()
    except (Exception, SystemExit) as error:  # whatever a constructor raises
        raise TaskError(
            f"the environment factory raised {type(error).__name__}: {error}; it is called without arguments"
        ) from error
    name = type(probe).__name__
    if _answers_itself(probe):
        if tools:
            raise TaskError(
                f"{name} answers by its own step(), so there is no use for tools beside it: leave them away"
            )
        return World(name, cast("Callable[[], Environment]", factory))
    if not isinstance(probe, _Resettable):
        raise TaskError(
            f"the environment {name} has no method reset: it has to have one, and step() or tools as methods"
        )
    _check_not_half(probe)
    extra = tools_of(tools)
    schemas = [Tool.of(method).schema for method in methods_of(probe)] + [tool.schema for tool in extra]
    return World(
        name,
        lambda: Hosted(factory(), extra),
        schemas,
        earns=isinstance(probe, _Graded),
        shown=lambda environment: cast(Hosted, environment).host,
    )
