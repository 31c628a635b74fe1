"""The judge's line to the program, and handles of what stays there.

A call goes over the line with its arguments, and a plain value comes back. What is no plain value stays with the
program, and a handle stands for it. A handle can be called, read, iterated and printed. It equals nothing but itself:
whether it equals anything else only the program could say.
"""

from __future__ import annotations

import builtins
import os
import secrets
from typing import Any

from .jobs import LINE, read_line
from .wire import MESSAGE, PLAIN, decode, encode, line_of, message_of


class UnsendableError(Exception):
    """A test hands the program something that cannot cross: a function, an object of a class of the test's own."""


class GoneError(Exception):
    """The program has ended, or breaks the rules of the line."""


class Line:
    """The line to the callee."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self.unsendable = ""
        """What a test tried to send and could not."""

    def ask(self, do: str, *given: Any) -> dict[str, Any]:
        """Ask and wait for the answer; raises what the program raised."""
        number = secrets.token_hex(8)  # an answer that was written before it was asked for does not know it
        view = memoryview(line_of({"id": number, "do": do, "with": given}))
        try:
            while view:
                view = view[os.write(LINE, view) :]
            answer = message_of(read_line(LINE, self._pending, MESSAGE) or b"null")
        except (OSError, ValueError) as error:
            raise GoneError(f"no answer from the program: {error}") from None
        if not isinstance(answer, dict) or answer.get("id") != number:
            said = answer.get("broken") if isinstance(answer, dict) else None
            raise GoneError(str(said or "the program ended while it was called"))
        if "raised" in answer:
            raise _as_raised(answer["raised"])
        return answer

    def wired(self, value: Any) -> Any:
        """A value of the test's, to be sent."""
        return encode(value, self._handle_of)

    def value(self, wired: Any) -> Any:
        """A value of the program's."""
        try:
            return decode(wired, self._handle)
        except ValueError as error:
            raise GoneError(f"the program returned what is no value: {error}") from None

    def _handle(self, content: Any) -> Any:
        if not isinstance(content, list) or len(content) != 2 or not isinstance(content[0], int):
            raise ValueError("not a handle")
        return Handle(self, content[0])

    def _handle_of(self, value: Any) -> Any:
        if isinstance(value, Handle):
            return ["handle", object.__getattribute__(value, "_number")]
        if type(value) in PLAIN:  # too deep, which may be the program's doing
            raise ValueError("a value that is nested too deeply")
        self.unsendable = f"a {type(value).__name__}"
        raise UnsendableError(f"a {type(value).__name__} cannot be sent to the program")


class Handle:
    """Something that stays with the program."""

    def __init__(self, line: Line, number: int) -> None:
        object.__setattr__(self, "_line", line)
        object.__setattr__(self, "_number", number)

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Call it where it is; what it did to lists, dicts and sets that it was given, is done to them here."""
        line = _line(self)
        wired = [line.wired(each) for each in given]
        answer = line.ask("call", _number(self), wired, {name: line.wired(each) for name, each in named.items()})
        changed = answer.get("changed")
        for place, after in changed.items() if isinstance(changed, dict) else ():
            if place.isdecimal() and int(place) < len(given):
                _change(given[int(place)], line.value(after))
        return line.value(answer.get("value"))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python itself looks for: protocols that a handle does not have
            raise AttributeError(name)
        return _line(self).value(_line(self).ask("get", _number(self), name).get("value"))

    def __setattr__(self, name: str, value: Any) -> None:
        _line(self).ask("set", _number(self), name, _line(self).wired(value))

    def __getitem__(self, key: Any) -> Any:
        return _line(self).value(_line(self).ask("item", _number(self), _line(self).wired(key)).get("value"))

    def __iter__(self) -> Any:
        return _line(self).value(_line(self).ask("iterate", _number(self)).get("value"))

    def __next__(self) -> Any:
        answer = _line(self).ask("next", _number(self))
        if answer.get("stop") is True:
            raise StopIteration
        return _line(self).value(answer.get("value"))

    def __len__(self) -> int:
        return _exactly(int, _line(self).ask("length", _number(self)).get("value"))

    def __bool__(self) -> bool:
        return _exactly(bool, _line(self).ask("truth", _number(self)).get("value"))

    def __str__(self) -> str:
        return _exactly(str, _line(self).ask("text", _number(self)).get("value"))

    def __repr__(self) -> str:
        return _exactly(str, _line(self).ask("code", _number(self)).get("value"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handle) and _number(self) == _number(other)

    def __hash__(self) -> int:
        return hash(_number(self))


def _line(handle: Handle) -> Line:
    return object.__getattribute__(handle, "_line")


def _number(handle: Handle) -> int:
    return object.__getattribute__(handle, "_number")


def _exactly(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise GoneError(f"the program answered {value!r:.80} where a {kind.__name__} belongs")
    return value


def _change(argument: Any, after: Any) -> None:
    """Make an argument what the call made of it."""
    if type(argument) is not type(after):
        return
    if isinstance(argument, list):
        argument[:] = after
    elif isinstance(argument, dict | set):
        argument.clear()
        argument.update(after)


_NEVER_RAISED = (StopIteration, StopAsyncIteration, GeneratorExit)
"""From inside `all(map(f, cases))` these would end the test early, and it would pass."""


def _as_raised(told: Any) -> Exception:
    """An exception like the one in the program, if it is one of Python's own."""
    if not isinstance(told, list) or len(told) != 2:
        return GoneError("the program raised what is no exception")
    kind = getattr(builtins, str(told[0]), None)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _NEVER_RAISED):
        try:
            return kind(str(told[1]))
        except Exception:  # UnicodeDecodeError wants five arguments
            return RuntimeError(f"{told[0]}: {told[1]}")
    return RuntimeError(f"{told[0]}: {told[1]}")
