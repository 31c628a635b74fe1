"""Rewards that run the program which a model wrote.

    [[rewards]]
    function = "code_stdio"     # whole programs: stdin in, stdout compared
    [[rewards]]
    function = "code_tests"     # functions: asserts, `check(candidate)`, unittest, pytest-style

Right is 1 and wrong is 0, also of a program that takes too long, too much memory or a forbidden way; unknown is only
what our machinery failed at. Tests come with the rows; the program is the last fenced block of the text.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from groupwise.rewards.code.columns import stdio_tests, unit_tests
from groupwise.rewards.code.compare import How, same_output
from groupwise.rewards.code.extract import program_of
from groupwise.rewards.code.levels import Boundary
from groupwise.rewards.code.sandbox import Sandbox, SandboxSettings, Tested, UnitTests, already_open, shared
from groupwise.rewards.contract import RewardFunction
from groupwise.rewards.outcomes import Mark, Unknown, Wrong
from groupwise.rewards.settings import Score
from groupwise.rewards.texts import Answer, text_of

LogMetric: TypeAlias = Callable[[str, float], None]

_BY_DEFAULT = SandboxSettings()

_ROW_SECONDS = 20
"""The deadline of one completion, at least, in wall seconds of one program: it may have many inputs."""

_OWN_SECONDS = 8
"""So many wall seconds of one program all its inputs may take together. One that waits at each of them would reach the
deadline, and what does that is nobody's fault."""


async def code_stdio(
    completions: Sequence[Answer],
    tests: Sequence[Any],
    log_metric: LogMetric,
    *,
    score: Score = 1.0,
    partial: bool = False,
    compare: How = "lines",
    tolerance: Score = 0.0,
    sandbox: SandboxSettings = _BY_DEFAULT,
) -> list[Mark]:
    """1 if the program prints the expected output for every input, else 0; with `partial`, the share of the inputs.

    Without `partial` the first input that goes wrong ends it. Outputs never enter the program's process: what it
    printed is compared here.
    """
    behind = shared(sandbox)
    cases = [stdio_tests(value, row) for row, value in enumerate(tests)]

    async def graded(program: str, pairs: list[tuple[str, str]]) -> Tested:
        passed: list[bool] = []
        seconds = 0.0
        for given, expected in pairs:
            if seconds > _OWN_SECONDS * sandbox.wall_seconds:
                rest = (False,) * (len(pairs) - len(passed))
                return Tested("wall", (*passed, *rest), f"all inputs together took {seconds:.0f} s")
            outcome = await behind.run(program, given)
            if not outcome.is_known:
                return Tested(outcome.end, detail=outcome.detail, is_known=False)
            seconds += outcome.wall_seconds
            right = outcome.end == "finished" and same_output(outcome.stdout, expected, compare, tolerance)
            passed.append(right)
            if not right and (not partial or outcome.end in ("cpu", "wall", "violation")):
                rest = (False,) * (len(pairs) - len(passed))
                return Tested(outcome.end, (*passed, *rest), outcome.detail, violation=outcome.end == "violation")
        return Tested("finished", tuple(passed))

    results = await _all(graded, completions, cases, sandbox.at_once)
    _note(results, behind, log_metric)
    return _marks(results, score, partial)


async def code_tests(
    completions: Sequence[Answer],
    tests: Sequence[Any],
    log_metric: LogMetric,
    *,
    score: Score = 1.0,
    partial: bool = False,
    sandbox: SandboxSettings = _BY_DEFAULT,
    **columns: Any,
) -> list[Mark]:
    """1 if the program's functions pass every test, else 0; with `partial`, the share of the tests.

    Columns that it looks at where there are any: `test_setup_code` runs before the tests, `prelude` before the program
    and before the tests (HumanEval's `prompt`), `entry_point` names the function that is tested.
    Program and tests run in two processes. Only the arguments of calls go to the program's, only plain values come
    back, and `==` is asked on this side: see `docs/sandbox.md` for what that leaves to a program that cheats.
    """
    behind = shared(sandbox)
    nothing = [None] * len(completions)
    more = [columns.get(name, nothing) for name in ("test_setup_code", "prelude", "entry_point")]
    rows = enumerate(zip(tests, *more, strict=True))
    cases = [unit_tests(values[0], values[1], values[2], values[3], row) for row, values in rows]
    results = await _all(behind.test, completions, cases, sandbox.at_once)
    _note(results, behind, log_metric)
    return _marks(results, score, partial)


async def _all(
    graded: Callable[[str, Any], Awaitable[Tested]],
    completions: Sequence[Answer],
    cases: Sequence[list[tuple[str, str]] | UnitTests],
    at_once: int,
) -> list[Tested]:
    """As many together as the sandbox has room for. A completion is looked at when it is its turn, which tells whoever
    watches the deadline that this goes on."""
    room = asyncio.Semaphore(at_once)

    async def one(row: int) -> Tested:
        async with room:
            program = program_of(text_of(completions[row]))
            return await graded(program, cases[row]) if program else Tested("crashed", detail="no program")

    return await asyncio.gather(*(one(row) for row in range(len(cases))))


def _note(results: list[Tested], behind: Sandbox, log_metric: LogMetric) -> None:
    """How programs ended, as shares of all. Violations that grow are the first sign of a model that breaks graders."""
    ends = Counter("unknown" if not result.is_known else result.end for result in results)
    counts = {
        "violations": sum(result.violation for result in results),
        "too_slow": ends["cpu"] + ends["wall"],
        "crashed": ends["crashed"],
        "unknown": ends["unknown"],
    }
    for name, count in counts.items():
        log_metric(f"sandbox/{name}", count / max(1, len(results)))
    if behind.boundary.level == "unsafe":
        log_metric("sandbox/unsafe", 1.0)


_LIMITS = {"cpu": "too much processor time", "wall": "it waits too long", "output": "too much output"}


def _marks(results: list[Tested], score: float, partial: bool) -> list[Mark]:
    return [_mark(result, score * (result.share if partial else float(result.share == 1.0))) for result in results]


def _mark(result: Tested, score: float) -> Mark:
    if not result.is_known:
        return Unknown(f"{result.end}: {result.detail}")
    if result.violation:
        return Wrong("violation: a system call that no honest program makes", min(score, 0.0))
    if result.end in _LIMITS:
        return Wrong(f"{_LIMITS[result.end]}: {result.detail}", score)
    return score


def in_sandbox(rewards: Iterable[RewardFunction], settings: SandboxSettings) -> tuple[RewardFunction, ...]:
    """The same functions, those that run programs with these settings."""
    return tuple(
        replace(
            reward,
            settings={**reward.settings, "sandbox": settings},
            deadline=max(reward.deadline, _ROW_SECONDS * settings.wall_seconds, _crowded_seconds(settings)),
        )
        if _runs_programs(reward)
        else reward
        for reward in rewards
    )


def _crowded_seconds(settings: SandboxSettings) -> float:
    """How long a program may take at most, with a place beside as many that compute as run at once."""
    return 4 * settings.cpu_seconds * settings.at_once / (os.cpu_count() or 1)


def boundary_of(rewards: Iterable[RewardFunction], *, opening: bool = False) -> Boundary | None:
    """What stands between programs and this machine; None if no function runs any.

    `opening` opens the sandbox if it is not open yet, so that a machine without a boundary refuses before a run begins.
    """
    for reward in rewards:
        if _runs_programs(reward):
            settings: SandboxSettings = reward.settings.get("sandbox", _BY_DEFAULT)
            sandbox = shared(settings) if opening else already_open(settings)
            return None if sandbox is None else sandbox.boundary
    return None


def _runs_programs(reward: RewardFunction) -> bool:
    return reward.function in (code_stdio, code_tests)
