"""The proof that graders survive hostile texts: what `groupwise doctor --graders` runs.

    proof = prove(10_000, seed=0)
    proof.complaints        # [] if all of it holds

Every text goes through the built-in rewards that look at texts. Nothing may crash or be left ungraded, 99 of a hundred
texts that are graded alone may take twice the deadline at most, memory may not grow by more than 5 %, the same texts
must score the same again, and ordinary answers must be graded as fast afterwards as before.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from groupwise.rewards.contract import Answers, RewardFunction
from groupwise.rewards.grading import grade
from groupwise.rewards.hostile import hostile_texts
from groupwise.rewards.load import load_reward
from groupwise.rewards.outcomes import Grade

DEADLINE = 2.0
"""Seconds of CPU time that one text may take in a verifier's process."""

_NAMES = (
    "correctness",
    "integer",
    "choice",
    "strict_format",
    "soft_format",
    "tag_count",
    "tags_present",
    "tag_order",
    "think_format",
    "boxed",
    "length",
    "cosine_length",
    "reached_end",
    "repetition",
    "language_share",
    "maths",
)
_BATCH = 100
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Proof:
    """What was measured."""

    texts: int
    seconds: float
    unknown: int
    limited: int
    slowest: float
    """Seconds for a text, all functions together, 99th percentile: of those that were graded alone."""
    changed: int
    """Texts that scored otherwise the second time."""
    growth: float
    """Of resident memory, between the first quarter and the end, as a share."""
    before: float
    """Ordinary answers a second."""
    after: float

    @property
    def complaints(self) -> list[str]:
        """What does not hold, in words."""
        found = [
            (self.unknown > 0, f"{self.unknown} texts could not be graded"),
            (self.slowest > 2 * DEADLINE, f"99 of 100 took up to {self.slowest:.1f} s, more than {2 * DEADLINE:g} s"),
            (self.changed > 0, f"{self.changed} texts scored otherwise the second time"),
            (self.growth > 0.05, f"memory grew by {self.growth:.0%}"),
            (self.after < 0.7 * self.before, f"{self.before:,.0f} answers a second before, {self.after:,.0f} after"),
        ]
        return [words for is_wrong, words in found if is_wrong]


def prove(count: int, seed: int = 0) -> Proof:
    """Grade so many hostile texts, a hundred together; a tenth of them once more, each alone and by the clock."""
    rewards = [load_reward(name) for name in _NAMES]
    _speed(rewards)  # starts what has to be started
    before, began = max(_speed(rewards), _speed(rewards)), time.perf_counter()
    unknown = limited = changed = 0
    durations: list[float] = []
    early = 0
    texts = hostile_texts(count, seed)
    for first in range(0, count, _BATCH):
        batch = [text for _, text in (next(texts) for _ in range(min(_BATCH, count - first)))]
        grades = _graded(rewards, batch)
        unknown += sum(grade.outcome == "unknown" for grade in grades)
        limited += sum(grade.outcome == "wrong" for grade in grades)
        if first // _BATCH % 10 == 0:
            for text, grade_before in zip(batch, grades, strict=True):
                started = time.perf_counter()
                [again] = _graded(rewards, [text])
                durations.append(time.perf_counter() - started)
                changed += again.parts != grade_before.parts
        if first <= count // 4:
            early = max(early, _resident())
    seconds = time.perf_counter() - began
    slowest = sorted(durations)[min(int(len(durations) * 0.99), len(durations) - 1)]
    growth = max(0.0, _resident() / early - 1)
    return Proof(
        count, seconds, unknown, limited, slowest, changed, growth, before, max(_speed(rewards), _speed(rewards))
    )


def _graded(rewards: Sequence[RewardFunction], texts: Sequence[str]) -> list[Grade]:
    answers = Answers(
        prompts=["What is 2 + 3?"] * len(texts),
        completions=texts,
        completion_ids=[(1, 2, 3)] * len(texts),
        finish_reasons=["stop" for _ in texts],
        columns={"answer": ["5"] * len(texts)},
    )
    return asyncio.run(grade(rewards, answers))


def _speed(rewards: Sequence[RewardFunction]) -> float:
    """Ordinary answers a second, one in fifty of them an expression."""
    texts = [r"\boxed{\frac{10}{\sqrt{4}}}" if index % 50 == 0 else f"<answer>{index}</answer>" for index in range(500)]
    started = time.perf_counter()
    _graded(rewards, texts)
    return len(texts) / (time.perf_counter() - started)


def _resident() -> int:
    """Bytes of memory that this process holds."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except OSError:  # no /proc here
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)
