"""Tool calls in what a model wrote, in the formats that chat templates teach.

    Hermes, Qwen   <tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>    any number of them
    Llama 3        {"name": "add", "parameters": {"a": 1, "b": 2}}                    the whole text, or several; by ;
    Mistral        [{"name": "add", "arguments": {"a": 1}}]                           with or without [TOOL_CALLS]
    Qwen3-Coder    <tool_call><function=add><parameter=a>1</parameter></function></tool_call>

A call that cannot be read is a `Broken` one, which the model is told about: to hide it would teach nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True, slots=True)
class Call:
    """A tool's name and what it is called with."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Broken:
    """What should have been a call, and why it is none."""

    why: str


_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_NAME = re.compile(r"\s*<function=([^<>\s]{1,200})>")
_PARAMETER = re.compile(r"<parameter=([^<>\s]{1,200})>\n?")


def calls_in(text: str) -> list[Call | Broken]:
    """All calls of a turn, in order; empty if there is none.

    Example: `calls_in('<tool_call>{"name": "now", "arguments": {}}</tool_call>')` -> `[Call("now", {})]`
    """
    if _OPEN in text:
        return [call for piece in text.split(_OPEN)[1:] for call in _marked(piece)]
    bare = text.strip().removeprefix("[TOOL_CALLS]").removeprefix("<|python_tag|>").strip()
    if not bare.startswith(("{", "[")):
        return []
    return list(_bare(bare))


def _marked(piece: str) -> Iterator[Call | Broken]:
    inside, closed, _ = piece.partition(_CLOSE)
    if not closed:
        yield Broken(f"{_OPEN} is never closed by {_CLOSE}")
    elif function := _NAME.match(inside):
        yield Call(function[1], dict(_parameters(inside[function.end() :])))
    else:
        yield from _of(_parsed(inside))


def _parameters(text: str) -> Iterator[tuple[str, Any]]:
    """Values are JSON where they can be read as such, else texts."""
    for piece in text.split("</parameter>")[:-1]:
        if name := _PARAMETER.search(piece):
            value = piece[name.end() :].removesuffix("\n")
            parsed = _parsed(value)
            yield name[1], value if isinstance(parsed, Broken) else parsed


def _bare(text: str) -> Iterator[Call | Broken]:
    """JSON without marks: only what looks like a call is one, for a model may answer with JSON."""
    whole = _parsed(text)
    values = [_parsed(piece) for piece in text.split(";")] if isinstance(whole, Broken) and ";" in text else [whole]
    for value in values:
        items = cast("list[Any]", value) if isinstance(value, list) else [value]
        if all(
            isinstance(item, dict) and "name" in item and ("arguments" in item or "parameters" in item)
            for item in items
        ):
            for item in items:
                yield from _of(item)


def _of(value: Any) -> Iterator[Call | Broken]:
    if isinstance(value, Broken):
        yield value
        return
    for item in cast("list[Any]", value) if isinstance(value, list) else [value]:
        call = cast("Mapping[str, Any]", item if isinstance(item, dict) else {})
        inner = call.get("function")
        call = cast("Mapping[str, Any]", inner) if isinstance(inner, Mapping) else call
        name, arguments = call.get("name"), call.get("arguments", call.get("parameters", {}))
        if isinstance(arguments, str):
            arguments = _parsed(arguments)
        if isinstance(name, str) and isinstance(arguments, Mapping):
            yield Call(name, dict(cast("Mapping[str, Any]", arguments)))
        else:
            yield Broken('a call is an object with a "name" and an object "arguments"')


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, or a number of 5,000 digits
        return Broken(f"this is not valid JSON: {error}"[:200])
