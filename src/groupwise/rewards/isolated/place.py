"""Reward functions named by path: each file or module in a process of its own, which is killed when it hangs.

The functions of one file share its process, and with it what the file keeps at its top level, from step to step until
it is killed; an async function has a process to itself, so that all of them run at once. A call that is late is killed
wherever it is, also in a C loop that holds the interpreter's lock, and the next one starts the process again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import threading
from collections.abc import Mapping
from typing import Any

from groupwise.errors import RewardError
from groupwise.rewards.contract import Answers, Place, RewardFunction, TrainerState
from groupwise.rewards.failure import Failure
from groupwise.rewards.invoke import is_async
from groupwise.rewards.isolated.draws import next_seed
from groupwise.rewards.isolated.process import Process
from groupwise.rewards.isolated.serve import mark_of
from groupwise.rewards.isolated.thread import in_a_thread, in_background
from groupwise.rewards.isolated.watch import LOG, Watch
from groupwise.rewards.isolated.wire import UnsendableError, encoded
from groupwise.rewards.log import GradingLog
from groupwise.rewards.outcomes import Mark

_LOADING = 600.0
"""Seconds for importing what a file imports, before its first call: a reward may load a model there."""

_TICK = 0.5

_PATIENT = 3.0
"""How many deadlines more a process is waited for that computes on a machine that has no time for it."""

_processes: dict[str, Process] = {}
"""Those that wait for work. One that works belongs to its call alone: a run that is interrupted leaves both behind."""

_known: dict[str, tuple[int, int]] = {}
"""Which history of training a process knows, and how much of it."""

_told: set[str] = set()


async def in_its_process(reward: RewardFunction, answers: Answers, state: TrainerState, log: GradingLog) -> list[Mark]:
    """Call it once. Rows that hold what is no plain data (pictures, ...) cannot be sent: then in a thread, here."""
    place = reward.place
    assert place is not None
    try:
        rows = _rows(answers)
        encoded(rows)
    except UnsendableError as error:
        if reward.name not in _told:
            _told.add(reward.name)
            LOG.warning("reward function %r runs in this process and not in one of its own: %s", reward.name, error)
        return await in_a_thread(reward, answers, state, log)
    seed = next_seed()  # drawn here: so a run that is repeated, or goes on after a kill, repeats these too
    abandoned = threading.Event()
    future, _ = in_background(lambda: _asked(reward, place, answers, {**rows, "seed": seed}, state, abandoned))
    try:
        reply = await asyncio.wrap_future(future)
    except BaseException:
        abandoned.set()
        raise
    if "mistake" in reply:
        raise RewardError(reply["mistake"])
    if "words" in reply:
        raise Failure(reply["kind"], reply["words"])
    log.add(GradingLog(reply["columns"], reply["noted"]), range(len(answers)), len(answers))
    return [mark_of(mark) for mark in reply["marks"]]


def lane(reward: RewardFunction) -> str | None:
    """Which functions have to wait for each other: those of one process. None: it has no process."""
    if reward.place is None:
        return None
    of_file = f"{reward.place.module}|{reward.place.stamp}"
    return f"{of_file}|{reward.name}" if is_async(reward.function) else of_file


def _rows(answers: Answers) -> dict[str, Any]:
    return {
        "prompts": [p if isinstance(p, str) else [dict(message) for message in p] for p in answers.prompts],
        "completions": list(answers.completions),
        "completion_ids": [list(ids) for ids in answers.completion_ids],
        "finish_reasons": list(answers.finish_reasons),
        "columns": {name: list(values) for name, values in answers.columns.items()},
        "said": [[dict(message) for message in messages] for messages in answers.said],
    }


def _asked(
    reward: RewardFunction,
    place: Place,
    answers: Answers,
    rows: Mapping[str, Any],
    state: TrainerState,
    abandoned: threading.Event,
) -> dict[str, Any]:
    key = lane(reward) or ""
    held = _processes.pop(key, None)
    if held is None:
        _end_older(place)
        _known.pop(key, None)
        held = Process("functions")
    request = {
        "function": place.function,
        "folder": str(place.folder),
        "name": reward.name,
        "settings": dict(reward.settings),
        "deadline": reward.deadline,
        "seed": rows["seed"],
        "answers": {name: value for name, value in rows.items() if name != "seed"},
        "state": _news(state, key),
    }
    loading = dataclasses.replace(reward, deadline=max(_LOADING, reward.deadline))
    reply: dict[str, Any] = {}
    if held.cpu == 0.0:
        held.send({"load": place.function, "folder": str(place.folder)})
        reply = _answer(held, Watch(loading, answers, f"process {held.id}, which imports it"), abandoned)
    if not ("words" in reply or "mistake" in reply):
        held.send(request)
        reply = _answer(held, Watch(reward, answers, f"process {held.id}"), abandoned)
    if abandoned.is_set():
        held.end()
    else:
        _processes[key] = held
    return reply


def _end_older(place: Place) -> None:
    """End the processes that have the file as it was before it was edited."""
    for key in list(_processes):
        if key.startswith(f"{place.module}|") and not key.startswith(f"{place.module}|{place.stamp}"):
            _processes.pop(key).end()


def _answer(process: Process, watch: Watch, abandoned: threading.Event) -> dict[str, Any]:
    """Wait for the answer; kill the process if it is late, and say whose fault it was, or if nobody waits any more."""
    # The time that one row takes: both are set back when it goes on to the next.
    used_before = process.cpu
    while True:
        try:
            messages = process.arrived(min(_TICK, watch.left) if watch.left > 0 else _TICK)
        except EOFError:
            raise _died(process, watch) from None
        for message in messages:
            if "cpu" in message:
                process.cpu = message["cpu"]
                return message
            if message["row"] != watch.row:
                used_before = process.cpu_now() or process.cpu
            watch.touched(message["row"])
        if abandoned.is_set():
            process.end()
            raise Failure("hung", watch.words)
        watch.speak()
        if watch.left <= 0:
            if _starved(process.cpu_now(), used_before, watch):
                continue
            _, used = process.end()
            busy = used - used_before
            LOG.warning("killed %s: %s; it used %.1f s of CPU time", f"process {process.id}", watch.words, busy)
            # What computed all the time was kept busy by the text; what did not was waiting for something else.
            raise Failure("limit" if busy > watch.deadline / 2 else "hung", watch.words)


def _starved(used: float | None, before: float, watch: Watch) -> bool:
    """Whether it computes, and the machine had so little time for it that nothing can be said of the row yet."""
    if used is None or watch.left < -_PATIENT * watch.deadline:
        return False
    return watch.deadline / 100 < used - before < watch.deadline / 2


def _died(process: Process, watch: Watch) -> Failure:
    code, _ = process.end()
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended itself with code {code} (os._exit?)"
    kind = "limit" if code == -signal.SIGXCPU else "died"
    return Failure(kind, f"the process of reward function {watch.name!r} {how}, {watch.place}")


def _news(state: TrainerState, key: str) -> dict[str, Any]:
    """The state of training without what that process knows of its history, for that grows with every step."""
    history = state.log_history
    of, count = _known.get(key, (0, 0))
    known = count if of == id(history) and count <= len(history) else 0
    _known[key] = (id(history), len(history))
    sent = dataclasses.asdict(dataclasses.replace(state, log_history=[]))
    del sent["log_history"]
    return {**sent, "known": known, "news": history[known:]}
