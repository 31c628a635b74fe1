"""`groupwise doctor --graders`: ten thousand hostile texts through the built-in rewards."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from groupwise.cli.findings import Finding

_SAID_EVERY = 10.0


def graders(count: int) -> Iterator[Finding]:
    """Grade so many hostile texts, and say what held."""
    from groupwise.rewards.graders_proof import DEADLINE, ENOUGH, prove

    proof = prove(count, heard=_Progress())
    pace, (low, high) = proof.pace, proof.pace.interval
    values = {
        "texts": proof.texts,
        "seconds": proof.seconds,
        "p99_seconds": proof.slowest,
        "limited": proof.limited,
        "unknown": proof.unknown,
        "changed": proof.changed,
        "memory_growth": proof.growth,
        "answers_a_second": pace.answers_a_second,
        "slowdown": pace.slowdown,
    }
    memory = f"judged from {ENOUGH:,} texts on" if proof.growth is None else f"{proof.growth:+.1%}"
    told = (
        f"{proof.texts:,} hostile texts, each twice, in {proof.seconds:.0f} s: {proof.limited:,} ran into a limit, "
        f"{proof.unknown} could not be graded, {proof.changed} scored otherwise the second time\n"
        f"99 of 100 took at most {proof.slowest:.2f} s (twice the deadline: {2 * DEADLINE:g} s); memory: {memory}\n"
        f"{pace.answers_a_second:,.0f} ordinary answers a second before, and afterwards {pace.slowdown:.3f} times as "
        f"long for each ({low:.3f} to {high:.3f})"
    )
    yield Finding("graders", "ok", told, values=values)
    for complaint in proof.complaints:
        yield Finding("graders", "error", complaint, "run it on an idle machine; if it stays, tell us")


class _Progress:
    """A line on standard error now and then: standard output belongs to the findings, as JSON perhaps."""

    def __init__(self) -> None:
        self._said = self._began = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._said >= _SAID_EVERY and done < total:
            self._said = now
            left = (now - self._began) * (total - done) / done
            sys.stderr.write(f"graded {done:,} of {total:,} texts, about {left:.0f} s left\n")
