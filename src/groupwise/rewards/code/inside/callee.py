"""The process that holds a model's program while a judge calls its functions.

It is given arguments and gives back values. Nothing that a test expects is ever here, so whatever the program does to
its own interpreter, the most that it can do is to return something.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from .jobs import LINE, ended, fresh_streams, module, payload, print_exception, read_line, run_here
from .wire import MESSAGE, decode, encode, line_of, message_of


class Objects:
    """What the judge holds handles of: an object's number is its place."""

    def __init__(self) -> None:
        self._kept: list[Any] = []
        self._numbers: dict[int, int] = {}

    def handle(self, value: Any) -> Any:
        """The wired handle of an object; the same object has the same."""
        number = self._numbers.setdefault(id(value), len(self._kept))
        if number == len(self._kept):
            self._kept.append(value)
        return ["handle", [number, callable(value)]]

    def get(self, number: Any) -> Any:
        """The object of a number."""
        return self._kept[number]

    def wired(self, value: Any) -> Any:
        """A value as it crosses."""
        return encode(value, self.handle)

    def value(self, wired: Any) -> Any:
        """A value that has crossed."""
        return decode(wired, self.get)


_IN_PLACE = (list, dict, set)


def _call(objects: Objects, function: Any, given: Any, named: Any) -> dict[str, Any]:
    """Call it. Lists, dicts and sets that it changed go back, too: a test may look at what a sort in place has done."""
    arguments = [objects.value(each) for each in given]
    value = objects.wired(objects.get(function)(*arguments, **{k: objects.value(v) for k, v in named.items()}))
    changed: dict[int, Any] = {}
    for place, argument in enumerate(arguments):
        if type(argument) in _IN_PLACE and (after := objects.wired(argument)) != given[place]:
            changed[place] = after
    return {"value": value, "changed": changed}


def _set(objects: Objects, of: Any, name: str, wired: Any) -> None:
    setattr(objects.get(of), name, objects.value(wired))


def _next(objects: Objects, of: Any) -> dict[str, Any]:
    """The next item. That there is none is a message of its own: a function that raises StopIteration says no such."""
    try:
        return {"value": objects.wired(next(objects.get(of)))}
    except StopIteration:
        return {"stop": True}


def _get(objects: Objects, of: Any, name: str) -> Any:
    return objects.wired(getattr(objects.get(of), name))


def _item(objects: Objects, of: Any, key: Any) -> Any:
    return objects.wired(objects.get(of)[objects.value(key)])


def _iterate(objects: Objects, of: Any) -> Any:
    return objects.handle(iter(objects.get(of)))


_WHOLE: Mapping[str, Callable[..., dict[str, Any]]] = {"call": _call, "next": _next}
_VALUES: Mapping[str, Callable[..., Any]] = {"get": _get, "set": _set, "item": _item, "iterate": _iterate}
_PLAIN: Mapping[str, Callable[[Any], Any]] = {"length": len, "truth": bool, "text": str, "code": repr}
"""What can be asked: with an answer of its own, with a value as the answer, of the object alone."""


def serve_calls() -> int:
    """Run the program, then answer until the judge has heard enough."""
    job = payload()
    fresh_streams()
    sys.argv = ["solution.py"]
    namespace = module("solution").__dict__
    try:
        for name in ("prelude", "text"):
            run_here(compile(job[name], f"{name}.py", "exec"), namespace)
    except BaseException as error:
        print_exception()
        _say({"broken": f"{type(error).__name__}: {error}"[:500]})
        return ended(1)
    objects, pending = Objects(), bytearray()
    while line := read_line(LINE, pending, MESSAGE):
        asked = message_of(line)
        _say({"id": asked["id"], **_answer(objects, namespace, asked)})
    return ended(0)


def _answer(objects: Objects, namespace: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    try:
        if asked["do"] == "names":
            return {"value": {name: objects.wired(namespace[name]) for name in asked["with"][0] if name in namespace}}
        do, given = asked["do"], asked["with"]
        if do in _WHOLE:
            return _WHOLE[do](objects, *given)
        return {"value": _VALUES[do](objects, *given) if do in _VALUES else _PLAIN[do](objects.get(given[0]))}
    except BaseException as error:
        return {"raised": [_known(type(error)), str(error)[:500]]}


def _known(kind: type[BaseException]) -> str:
    """The nearest of its classes that is Python's own."""
    return next(each.__name__ for each in kind.__mro__ if each.__module__ == "builtins")


def _say(message: dict[str, Any]) -> None:
    sys.stdout.flush()
    view = memoryview(line_of(message))
    with contextlib.suppress(BrokenPipeError):  # the judge has its verdict
        while view:
            view = view[os.write(LINE, view) :]
