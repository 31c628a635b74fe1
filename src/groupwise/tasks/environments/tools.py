"""Tools: typed Python functions with docstrings that a model may call.

    def add(a: int, b: int) -> int:
        '''Add two numbers.

        Args:
            a: The first one.
            b: The second one.
        '''
        return a + b

The annotations and the docstring become the JSON schema that the chat template shows; arguments are checked against the
annotations before the function sees them. Whatever goes wrong in a call is told to the model: it is part of the game.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, cast, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from transformers.utils.chat_template_utils import get_json_schema
from typing_extensions import TypedDict

from groupwise.errors import TaskError
from groupwise.rewards import name_of
from groupwise.tasks.environments.calls import Broken, Call, calls_in
from groupwise.tasks.environments.environment import Environment, Reply, World
from groupwise.tasks.environments.patience import patiently
from groupwise.types import Message, Problem

LONGEST_RESULT = 8000
"""Characters of a result that the model gets to see."""

MOST_CALLS = 32
"""Calls of one turn that are answered; who writes more hears nothing of the others."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function, what the model is told of it, and what its arguments are checked by."""

    name: str
    function: Callable[..., Any]
    schema: Mapping[str, Any]
    arguments: TypeAdapter[Any]

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Tool:
        """From a function, or a method that is bound to its object."""
        name = name_of(function)
        try:
            schema = get_json_schema(function)
            hints = {key: hint for key, hint in get_type_hints(function).items() if key != "return"}
            arguments = _checker(name, hints, inspect.signature(function).parameters.values())
        except Exception as error:  # of transformers' own kinds, pydantic's, or NameError from an annotation
            raise TaskError(
                f"{name!r} cannot be a tool: {str(error).rstrip('.! ')}. A tool has an annotation for each "
                "parameter and a docstring with a line for each under 'Args:'"
            ) from error
        return cls(schema["function"]["name"], function, schema, arguments)

    async def call(self, arguments: Mapping[str, Any], seconds: float | None = None) -> str:
        """The result as text, or what was wrong, as `error: ...`; also that there was none in so many seconds."""
        try:
            checked = self.arguments.validate_python(dict(arguments))
        except ValidationError as error:
            told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
            return clean(f"error: {self.name}: {told}")
        try:
            return spelled(await asyncio.wait_for(patiently(self.function, checked), seconds))
        except TimeoutError:
            return f"error: TimeoutError: {self.name} gave no result within {seconds:.2g} s"
        except Exception as error:  # what a tool raises is an answer, too
            return f"error: {_told(error)}"


def _checker(name: str, hints: Mapping[str, Any], parameters: Iterable[inspect.Parameter]) -> TypeAdapter[Any]:
    """What takes a call's arguments, as a dict. Parameters may be called anything; defaults are the function's own."""
    fields: dict[str, Any] = {}
    for p in parameters:
        if p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
            raise TypeError(f"arguments come by name, and {str(p).partition(':')[0]!r} has none that a call could use")
        fields[p.name] = hints[p.name] if p.default is p.empty else NotRequired[hints[p.name]]
    return TypeAdapter(with_config(ConfigDict(extra="forbid"))(TypedDict(f"{name}_arguments", fields)))  # pyright: ignore


def spelled(result: Any) -> str:
    """A result as the model reads it: texts as they are, all else as JSON."""
    try:
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
    except (ValueError, TypeError, RecursionError):
        text = str(result)
    return clean(text)


def clean(text: str, longest: int | None = LONGEST_RESULT) -> str:
    """Without half characters, which no tokenizer takes, and not longer than a model can read."""
    shown = text[:longest].encode("utf-8", "replace").decode()
    return shown if len(shown) == len(text) else f"{shown}... ({len(text)} characters)"


def _told(error: Exception) -> str:
    try:
        return clean(f"{type(error).__name__}: {error}")
    except Exception:  # an exception that cannot even be shown
        return type(error).__name__


class ToolBox(Environment):
    """The environment of a task with tools: it answers calls, and a turn without a call ends the conversation.

    `calls` and `failures` count what was called and what came to nothing.
    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self.seconds = 50.0
        """For all calls of a turn together: what is late is told to the model, as all that goes wrong."""
        self.calls = 0
        self.failures = 0

    async def reset(self, problem: Problem) -> str | None:
        """Nothing to prepare."""
        self.calls = self.failures = 0
        return None

    async def step(self, said: str) -> Reply:
        """One `tool` message for each call."""
        calls = calls_in(said)
        until = time.monotonic() + self.seconds
        return Reply(tuple([await self._answer(call, until) for call in calls[:MOST_CALLS]]), done=not calls)

    async def _answer(self, call: Call | Broken, until: float) -> Message:
        self.calls += 1
        name = "unknown" if isinstance(call, Broken) else call.name
        if isinstance(call, Broken):
            content = f"error: {call.why}"
        elif call.name not in self._tools:
            content = f"error: there is no tool {call.name[:80]!a}. There are: {', '.join(self._tools)}"
        else:
            content = await self._tools[call.name].call(call.arguments, max(until - time.monotonic(), 0.01))
        self.failures += content.startswith("error: ")
        return {"role": "tool", "name": name, "content": content}


def tools_of(functions: object) -> list[Tool]:
    """A tool of each; a function alone is the commonest slip, and says what to write instead."""
    if callable(functions):
        name = name_of(functions)
        raise TaskError(f"tools is {name!r} alone, and it has to be a list of functions: tools=[{name}]")
    if isinstance(functions, str | bytes | Mapping) or not isinstance(functions, Iterable):
        raise TaskError(
            f"tools is a {type(functions).__name__}, {ascii(functions)[:60]}: it has to be a list of functions, such "
            "as tools=[add]"
        )
    return [Tool.of(function) for function in cast("Iterable[Callable[..., Any]]", functions)]


def with_tools(functions: Sequence[Callable[..., Any]]) -> World:
    """A world in which a model may call these functions.

    Example: `Task("sums", train, held_out, environment=with_tools([add, subtract]))`
    """
    tools = tools_of(functions)
    if not tools:
        raise TaskError("tools is an empty list: leave it away, or name a function")
    if len({tool.name for tool in tools}) < len(tools):
        raise TaskError(f"two tools have one name: {', '.join(tool.name for tool in tools)}")
    return World("tools", lambda: ToolBox(tools), [tool.schema for tool in tools], earns=False)
