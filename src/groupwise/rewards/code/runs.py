"""From texts to jobs, and from how a process ended to how its program did."""

from __future__ import annotations

import marshal
import signal

from groupwise.rewards.code.jobs import Ended, Job
from groupwise.rewards.code.outcome import End, Limits, Outcome

_OURS = {"lost", "unconfined"}
"""Ends that our machinery brought about."""


def program_job(text: str, stdin: str, limits: Limits) -> Job:
    """A script that reads `stdin`."""
    return Job("program", marshal.dumps({"text": text}), limits, stdin.encode("utf-8", "surrogatepass"))


def end_of(ended: Ended, limits: Limits) -> tuple[End, str]:
    """How a program ended, and words for it. What the program says of itself, its exit status, can only be held
    against it."""
    report = ended.report
    end, code = report["end"], int(report.get("code", 0))
    if end in _OURS:
        return "lost", str(report.get("why") or f"the process could not be confined ({code})")
    if end in ("cpu", "wall", "starved"):
        return end, f"after {report['cpu']:.2f} processor seconds in {report['wall']:.2f} s"
    if end == "threads":
        return "crashed", "too many threads"
    if max(len(ended.stdout), len(ended.stderr)) >= limits.output_kb << 10 or code == -signal.SIGXFSZ:
        return "output", f"more than {limits.output_kb} kB"
    if code == -signal.SIGSYS:
        return "violation", "a system call that no honest program makes"
    if code == -signal.SIGKILL and report.get("filtered"):
        # It cannot have done it itself: seccomp lets it send no signal. The machine ran out of memory, or somebody.
        return "lost", "the process was killed from outside"
    if code:
        return "crashed", f"signal {-code}" if code < 0 else f"exit status {code}"
    return "finished", ""


def outcome_of(ended: Ended, limits: Limits) -> Outcome:
    """The whole outcome of a script."""
    end, detail = end_of(ended, limits)
    return Outcome(
        end,
        ended.stdout.decode("utf-8", "replace"),
        ended.stderr.decode("utf-8", "replace"),
        float(ended.report.get("cpu", 0.0)),
        float(ended.report.get("wall", 0.0)),
        detail,
    )
