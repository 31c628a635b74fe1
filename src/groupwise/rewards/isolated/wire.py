"""What goes between this process and one that runs rewards: plain data as JSON, with a length in front.

    send(connection, {"completions": ["4", "\\ud800"], "row": 3})
    for message in Inbox(connection).waiting(): ...

Nothing that arrives can run: no pickle, for a process that looks at a model's text is not to be trusted with code of
ours. JSON carries lone surrogates and infinities; what it has no word for but columns hold (bytes, dates, decimals,
fractions, sets, numpy's arrays) has a tag. Tuples become lists. Anything else is an `UnsendableError`.
"""

from __future__ import annotations

import base64
import datetime
import json
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, Protocol, cast, runtime_checkable

_TAG = "\x00groupwise"
_LENGTH = struct.Struct("!Q")


class UnsendableError(TypeError):
    """A value that is no plain data."""


@runtime_checkable
class _Array(Protocol):
    """A numpy array or scalar, or a tensor on the CPU."""

    shape: Any

    def tolist(self) -> Any: ...


_FROM: Mapping[str, Callable[[Any], Any]] = {
    "bytes": lambda value: base64.b64decode(value),
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "seconds": lambda value: datetime.timedelta(seconds=value),
    "decimal": Decimal,
    "fraction": Fraction,
    "set": set,
    "complex": lambda value: complex(*value),
    "dict": dict,
}


def encoded(value: Any) -> bytes:
    """The value as JSON, in ASCII."""
    try:
        return json.dumps(value, default=_tagged).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise UnsendableError(str(error)) from error


def decoded(data: bytes) -> Any:
    """The value again."""
    return json.loads(data, object_hook=_untagged)


def _tagged(value: Any) -> Any:
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return {_TAG: type(value).__name__, "value": value.isoformat()}
    found: tuple[str, Any]
    if isinstance(value, bytes | bytearray | memoryview):
        found = "bytes", base64.b64encode(cast(bytes, value)).decode("ascii")
    elif isinstance(value, datetime.timedelta):
        found = "seconds", value.total_seconds()
    elif isinstance(value, Decimal | Fraction):
        found = type(value).__name__.lower(), str(value)
    elif isinstance(value, set | frozenset):
        found = "set", list(cast(set[Any], value))
    elif isinstance(value, complex):
        found = "complex", [value.real, value.imag]
    elif isinstance(value, _Array):
        return value.tolist()
    elif isinstance(value, Mapping):
        found = "dict", list(cast(Mapping[Any, Any], value).items())
    else:
        raise UnsendableError(f"a {type(value).__name__} is no plain data")
    return {_TAG: found[0], "value": found[1]}


def _untagged(found: dict[str, Any]) -> Any:
    kind = found.get(_TAG, "")
    return _FROM[kind](found["value"]) if kind in _FROM else found


def send(connection: socket.socket, value: Any) -> None:
    """Send one message, all of it."""
    data = encoded(value)
    connection.sendall(_LENGTH.pack(len(data)) + data)


class Inbox:
    """The messages that arrive at one end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._held = bytearray()

    def receive(self) -> Any:
        """The next message; `EOFError` when the other side is gone."""
        while True:
            for message in self._whole():
                return message
            self._more()

    def waiting(self) -> Iterator[Any]:
        """Every message that is here after reading once; `EOFError` when the other side is gone."""
        self._more()
        yield from self._whole()

    def _more(self) -> None:
        try:
            data = self._connection.recv(1 << 20)
        except ConnectionError:
            data = b""
        if not data:
            raise EOFError
        self._held += data

    def _whole(self) -> Iterator[Any]:
        while len(self._held) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._held)
            end = _LENGTH.size + length
            if len(self._held) < end:
                return
            data = bytes(self._held[_LENGTH.size : end])
            del self._held[:end]
            yield decoded(data)
