"""Inside a process that runs rewards: read a request, do it, answer. Started as `python -m ... SOCKET LIFELINE`.

Imports no torch by itself, so that it is there in a tenth of a second; a reward that needs torch imports it here.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from groupwise.errors import RewardError
from groupwise.rewards.contract import Answers, RewardFunction, TrainerState
from groupwise.rewards.failure import Failure, shown
from groupwise.rewards.invoke import is_async, keywords, run, run_async
from groupwise.rewards.isolated import limits
from groupwise.rewards.isolated.draws import seed_all
from groupwise.rewards.isolated.wire import Inbox, UnsendableError, encoded, send
from groupwise.rewards.log import GradingLog
from groupwise.rewards.outcomes import Mark, Unknown, Wrong

_OVER = 60.0
"""Seconds of CPU time beyond the deadline that no call reaches while somebody watches."""


def main() -> None:
    """Serve until the other side is gone."""
    connection, lifeline = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which ends this process
    inbox = Inbox(connection)
    try:
        hello = inbox.receive()
    except (EOFError, ConnectionError):
        return  # the trainer was killed before it could say what it wants
    sys.path[:] = hello["path"]
    if hello["job"] == "forks":
        from groupwise.rewards.isolated.forks import serve_forks

        serve_forks(connection, hello["preload"], lifeline)
        return
    limits.end_with(lifeline)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionError):
        Functions(connection).serve(inbox)


class Functions:
    """Reward functions of one file or module, called batch by batch."""

    def __init__(self, connection: socket.socket) -> None:
        import asyncio

        self._connection = connection
        self._loop = asyncio.new_event_loop()
        self._loaded: dict[str, Callable[..., Any]] = {}
        self._history: list[dict[str, float]] = []

    def serve(self, inbox: Inbox) -> None:
        """Answer one request after another."""
        while True:
            request = inbox.receive()
            answer = self._answer(request)
            send(self._connection, {**answer, "cpu": time.process_time()})

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        log = GradingLog()
        try:
            if "load" in request:
                self._function(request["load"], request["folder"])
                return {}
            marks = self._graded(request, log)
        except Failure as failure:
            return {"kind": failure.kind, "words": failure.words}
        except RewardError as error:
            return {"mistake": str(error)}
        except BaseException as error:  # what else gets out of a call, such as a task that cancels itself
            return {"kind": "raised", "words": f"reward function {request.get('name', '')!r} raised {shown(error)}"}
        return {
            "marks": [plain(mark) for mark in marks],
            "columns": {name: [_sendable(value) for value in values] for name, values in log.columns.items()},
            "noted": log.noted,
        }

    def _graded(self, request: dict[str, Any], log: GradingLog) -> list[Mark]:
        function = self._function(request["function"], request["folder"])
        reward = RewardFunction(request["name"], function, settings=request["settings"])
        answers = Answers(**request["answers"])
        limits.cap_cpu(request["deadline"] * max(len(answers), 1) + _OVER)
        seed_all(request["seed"])
        given = keywords(reward, answers, self._state(request["state"]), log, self._touched)
        if is_async(function):
            return self._loop.run_until_complete(run_async(reward, given, answers))
        return run(reward, given, answers, (__file__,))

    def _function(self, name: str, folder: str) -> Callable[..., Any]:
        if name not in self._loaded:
            from groupwise.rewards.load import find

            self._loaded[name] = find(name, Path(folder))[0]
        return self._loaded[name]

    def _state(self, sent: dict[str, Any]) -> TrainerState:
        """The state of training, its history grown by what is new of it."""
        del self._history[sent.pop("known") :]
        self._history.extend(sent.pop("news"))
        return TrainerState(**sent, log_history=self._history)

    def _touched(self, row: int) -> None:
        send(self._connection, {"row": row})


def plain(mark: Mark) -> Any:
    """A mark as JSON has it."""
    if isinstance(mark, Wrong):
        return {"wrong": mark.why, "score": mark.score}
    return {"unknown": mark.why} if isinstance(mark, Unknown) else mark


def mark_of(value: Any) -> Mark:
    """And back."""
    if isinstance(value, dict):
        return Unknown(value["unknown"]) if "unknown" in value else Wrong(value["wrong"], value["score"])
    return value


def _sendable(value: Any) -> Any:
    try:
        encoded(value)
    except UnsendableError:
        return str(value)
    return value
