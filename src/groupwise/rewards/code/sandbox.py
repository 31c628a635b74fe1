"""Run a program, or put tests to it, behind the best boundary that works here.

    sandbox = shared(SandboxSettings())
    outcome = await sandbox.run("print(int(input()) + 1)", "41")      # outcome.stdout == "42\\n"
    tested = await sandbox.test("def f(x): return x + 1", UnitTests(("assert f(41) == 42",)))

Without a boundary nothing runs, unless the settings say `unsafe`.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import marshal
import os
import secrets
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from groupwise.errors import RewardError
from groupwise.rewards.code.forkserver import ForkServer, Layers, UnavailableError
from groupwise.rewards.code.jobs import Ended, Job
from groupwise.rewards.code.levels import Boundary, detect
from groupwise.rewards.code.outcome import End, Limits, Outcome
from groupwise.rewards.code.remote import run_remotely
from groupwise.rewards.code.runs import end_of, outcome_of, program_job
from groupwise.rewards.code.wasm import run_in_wasm

_JUDGE_SLACK = 5.0
"""Wall seconds that a judge has on top of the program's own."""


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """What a recipe's [sandbox] says."""

    level: Literal["auto", "strong", "unsafe"] = "auto"
    url: str = ""
    cpu_seconds: float = 4.0
    wall_seconds: float = 10.0
    memory_mb: int = 512
    output_kb: int = 1024
    at_once: int = 64
    packages: tuple[str, ...] = ()

    @property
    def limits(self) -> Limits:
        """What one program may use."""
        return Limits(self.cpu_seconds, self.wall_seconds, self.memory_mb, self.output_kb)


@dataclass(frozen=True, slots=True)
class UnitTests:
    """Tests of one problem: texts that are run one after the other, what comes before them, and what they test."""

    texts: tuple[str, ...]
    setup: str = ""
    """Run before the tests, after the program's names are there."""
    prelude: str = ""
    """Run before the program and, apart from it, before the tests: imports and helpers that both count on."""
    entry_point: str = ""
    """The one name that is the program's. Without it, every name that only the program can define."""


@dataclass(frozen=True, slots=True)
class Tested:
    """How each test ended, and how the program did."""

    end: End
    passed: tuple[bool, ...] = ()
    detail: str = ""
    is_known: bool = True
    violation: bool = False

    @property
    def share(self) -> float:
        """Share of the tests that passed."""
        return sum(self.passed) / len(self.passed) if self.passed else 0.0


class Sandbox:
    """A boundary, and programs behind it. Any thread and any event loop may use it."""

    def __init__(self, boundary: Boundary, settings: SandboxSettings, server: ForkServer | None) -> None:
        self.boundary, self.settings, self._server = boundary, settings, server
        self._threads = ThreadPoolExecutor(settings.at_once, "groupwise sandbox") if server is None else None

    async def run(self, text: str, stdin: str = "") -> Outcome:
        """Run a script on an input."""
        limits = self.settings.limits
        if self._server is not None:
            [ended] = await asyncio.wrap_future(self._server.submit([program_job(text, stdin, limits)]))
            return outcome_of(ended, limits)
        assert self._threads is not None
        if self.boundary.level == "remote":
            running: Future[Outcome] = self._threads.submit(run_remotely, self.settings.url, text, stdin, limits)
        else:
            running = self._threads.submit(run_in_wasm, text, stdin, limits)
        return await asyncio.wrap_future(running)

    async def test(self, text: str, tests: UnitTests) -> Tested:
        """Put tests to a program: it runs in one process, they run in another."""
        if self._server is None:
            raise RewardError(
                f"unit tests cannot run in a sandbox of level {self.boundary.level.upper()}: they need a second "
                "process that the program cannot reach. Use a local sandbox, or programs with stdin and stdout"
            )
        nonce, limits = secrets.token_hex(16), self.settings.limits
        callee = Job("callee", marshal.dumps({"text": text, "prelude": tests.prelude}), limits)
        slower = Limits(limits.cpu_seconds, limits.wall_seconds + _JUDGE_SLACK, limits.memory_mb, limits.output_kb)
        put = {
            "nonce": nonce,
            "tests": tests.texts,
            "setup": tests.setup,
            "prelude": tests.prelude,
            "entry_point": tests.entry_point,
        }
        both = [callee, Job("judge", marshal.dumps(put), slower)]
        program, judge = await asyncio.wrap_future(self._server.submit(both))
        return _tested(program, judge, nonce, limits, slower)

    def close(self) -> None:
        """End all that runs in it."""
        if self._server is not None:
            self._server.close()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)


def _tested(program: Ended, judge: Ended, nonce: str, limits: Limits, slower: Limits) -> Tested:
    """The verdict, and how the program ended when there was no time for one."""
    end, detail = end_of(program, limits)
    violation = end == "violation"
    verdict = _verdict(judge.verdict, nonce)
    results: list[list[str]] = verdict.get("tests", [])
    if results and all(status == "passed" for status, _ in results):
        return Tested("finished", (True,) * len(results), violation=violation)
    if end in ("lost", "starved"):
        return Tested(end, detail=detail, is_known=False)
    if results:
        passed = tuple(status == "passed" for status, _ in results)
        why = next(words for status, words in results if status != "passed")
        unjudged = all(status != "failed" for status, _ in results)
        return Tested(end, passed, why, is_known=not unjudged, violation=violation)
    if "broken" in verdict:
        return Tested("lost", detail=f"the tests themselves do not run: {verdict['broken']}", is_known=False)
    judge_end, judge_detail = end_of(judge, slower)
    if judge_end in ("lost", "starved"):
        return Tested(judge_end, detail=judge_detail, is_known=False)
    # What a program returns can keep the tests busy for ever, so this is its own fault.
    return Tested(
        judge_end, detail=f"the tests ended without a verdict: {judge_end} {judge_detail}", violation=violation
    )


def _verdict(written: bytes, nonce: str) -> dict[str, Any]:
    """What the judge wrote, if it wrote it to the end."""
    try:
        verdict = json.loads(written)
    except ValueError:
        return {}
    return verdict if verdict.get("nonce") == nonce else {}


def open_sandbox(settings: SandboxSettings) -> Sandbox:
    """The best boundary that works here, or a RewardError with the ways out."""
    if settings.url:
        return Sandbox(Boundary("remote", url=settings.url), settings, None)
    if settings.level == "unsafe":
        return Sandbox(*_without_boundary(settings))
    boundary, server = detect(settings.packages, settings.at_once)
    if boundary.level == "none" or (settings.level == "strong" and boundary.level != "strong"):
        if server is not None:
            server.close()
        tried = "".join(f"\n  {reason}" for reason in boundary.reasons)
        asked = 'sandbox.level = "strong", but here it is ' if boundary.level != "none" else "code sandbox: "
        raise RewardError(f"{asked}{boundary}{tried}")
    return Sandbox(boundary, settings, server)


def _without_boundary(settings: SandboxSettings) -> tuple[Boundary, SandboxSettings, ForkServer]:
    """Process limits and nothing else, as the recipe accepts."""
    server = ForkServer(Layers(), settings.packages, settings.at_once)
    try:
        server.start()
    except UnavailableError as error:
        raise RewardError(f"not even an unsafe sandbox can be started here: {error}") from error
    return Boundary("unsafe"), settings, server


_opened: dict[tuple[int, SandboxSettings], Sandbox] = {}


def shared(settings: SandboxSettings) -> Sandbox:
    """The sandbox of these settings, opened once in a process; a process that was forked opens its own."""
    key = (os.getpid(), settings)
    if key not in _opened:
        _opened[key] = open_sandbox(settings)
        atexit.register(_opened[key].close)
    return _opened[key]


def already_open(settings: SandboxSettings) -> Sandbox | None:
    """The sandbox of these settings if this process has opened it."""
    return _opened.get((os.getpid(), settings))
