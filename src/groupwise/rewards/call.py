"""Calling one reward function on a batch, and what becomes of a call that fails.

    on_error = "unknown"   the rows that it fails on have no reward; the others are graded without them
    on_error = "retry"     the same after two more attempts, one and four seconds later
    on_error = "stop"      a RewardError that names the function and the row

Which rows those are is found by giving it one row after another. (A function with side effects sees those calls; what
it logs in them is thrown away.) A row that alone uses up its time or memory, while others do not, hit a limit by
itself: that is `Wrong`, not unknown. If every row does, it is the function.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from groupwise.errors import RewardError
from groupwise.rewards.cache import remembered
from groupwise.rewards.contract import Answers, RewardFunction, TrainerState
from groupwise.rewards.failure import Failure, excerpt
from groupwise.rewards.isolated.place import in_its_process
from groupwise.rewards.isolated.thread import in_a_thread
from groupwise.rewards.log import GradingLog
from groupwise.rewards.outcomes import Mark, Unknown, Wrong, settled

_SEARCH_SECONDS = 10.0
"""How long to look for the row that makes a function raise."""

_HUNG_ROWS = 4
"""So many rows that hang one after another, and none that does not: then it is the function that hangs."""

_DEAD_ROWS = 2
"""So many whose process ends: each start of another takes long on a busy machine, with what a file imports."""

PAUSES = (1.0, 4.0)
"""Seconds before each further attempt."""

Once: TypeAlias = Callable[[Answers, GradingLog], Awaitable[list[Mark]]]


async def call(reward: RewardFunction, answers: Answers, trainer_state: TrainerState, log: GradingLog) -> list[Mark]:
    """One mark per row of `answers`."""

    async def once(some: Answers, notes: GradingLog) -> list[Mark]:
        way = in_a_thread if reward.place is None else in_its_process
        return await way(reward, some, trainer_state, notes)

    async def graded(some: Answers, notes: GradingLog) -> list[Mark]:
        if reward.on_error == "stop":
            return await _or_stop(reward, some, once, notes)
        return await _or_unknown(some, once, notes, attempts=reward.on_error == "retry")

    if reward.cache:
        return settled(await remembered(reward, answers, graded, log))
    return settled(await graded(answers, log))


async def _or_stop(reward: RewardFunction, answers: Answers, once: Once, log: GradingLog) -> list[Mark]:
    try:
        marks = await once(answers, log)
    except Failure as failure:
        if failure.kind == "returned":
            raise RewardError(failure.words) from failure.__cause__
        row = await _row_that_fails(answers, once)
        raise RewardError(f"{failure.words}. {row}") from failure.__cause__
    for row, mark in enumerate(marks):
        if isinstance(mark, Unknown):
            known = mark.why.startswith("reward function ")
            where = "" if known else f"reward function {reward.name!r}, row {row} ({excerpt(answers, row)}): "
            raise RewardError(where + mark.why)
    return marks


async def _row_that_fails(answers: Answers, once: Once) -> str:
    """A sentence about the first row that makes the function fail when it is given that row alone."""
    until = time.monotonic() + _SEARCH_SECONDS
    for row in range(len(answers)):
        if time.monotonic() > until:
            return f"Which of the {len(answers)} rows it was is not known: none of the first {row} raises alone"
        try:
            await once(answers.row(row), GradingLog())
        except Failure as failure:
            what = failure.words.partition(" raised ")[2].partition(" at ")[0] or failure.words
            return f"It raises on row {row} ({excerpt(answers, row)}), there with {what}"
    return f"No row of the {len(answers)} makes it raise alone: it depends on the whole batch, or on chance"


async def _or_unknown(answers: Answers, once: Once, log: GradingLog, *, attempts: bool) -> list[Mark]:
    marks = await _attempt(answers, once, log)
    for pause in PAUSES if attempts else ():
        again = [row for row, mark in enumerate(marks) if isinstance(mark, Unknown)]
        if not again:
            break
        await asyncio.sleep(pause)
        # What the function logs belongs to the whole batch, so it is taken from the first attempt or not at all.
        better = await _attempt(answers.rows(again), once, log if len(again) == len(answers) else GradingLog())
        for row, mark in zip(again, better, strict=True):
            marks[row] = mark
    return marks


async def _attempt(answers: Answers, once: Once, log: GradingLog) -> list[Mark]:
    notes = GradingLog()
    try:
        marks = await once(answers, notes)
    except Failure as failure:
        if failure.kind == "returned" or len(answers) == 1:
            return [_blamed(failure)] * len(answers)
        bad = await _failing_rows(answers, once)
        if not bad:  # it depends on the whole batch, or on chance
            return [Unknown(failure.words)] * len(answers)
        return await _without(bad, answers, once, log)
    log.add(notes, range(len(answers)), len(answers))
    return marks


async def _failing_rows(answers: Answers, once: Once) -> dict[int, Wrong | Unknown]:
    """The rows that it fails on alone; all rows, if it does so on each that was looked at: then it is the function."""
    bad: dict[int, Wrong | Unknown] = {}
    until, looked, slow, dead = time.monotonic() + _SEARCH_SECONDS, 0, 0, 0
    # In no order: the completions of one problem stand together, and are often bad together.
    for row in random.Random(0).sample(range(len(answers)), len(answers)):
        if slow == looked >= _HUNG_ROWS or dead == looked >= _DEAD_ROWS or (slow == 0 and time.monotonic() > until):
            break
        looked += 1
        try:
            await once(answers.row(row), GradingLog())
        except Failure as failure:
            slow += failure.kind != "raised"
            dead += failure.kind == "died"
            if failure.kind == "raised":
                failure.words += f". It raises on row {row} ({excerpt(answers, row)})"
            bad[row] = _blamed(failure)
    if bad and len(bad) == looked:
        why = bad[min(bad)].why
        return {row: Unknown(why) for row in range(len(answers))}
    return bad


def _blamed(failure: Failure) -> Wrong | Unknown:
    return Wrong(failure.words) if failure.kind == "limit" else Unknown(failure.words)


async def _without(bad: dict[int, Wrong | Unknown], answers: Answers, once: Once, log: GradingLog) -> list[Mark]:
    """The marks of the other rows, called together as the contract has it."""
    rest = [row for row in range(len(answers)) if row not in bad]
    notes = GradingLog()
    marks: list[Mark] = []
    if rest:
        try:
            marks = await once(answers.rows(rest), notes)
        except Failure as failure:
            marks = [Unknown(failure.words)] * len(rest)
        log.add(notes, rest, len(answers))
    known = dict(zip(rest, marks, strict=True))
    return [bad[row] if row in bad else known[row] for row in range(len(answers))]
