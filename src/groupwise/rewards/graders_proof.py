"""The proof that graders survive hostile texts: what `groupwise doctor --graders` runs.

    proof = prove(10_000, seed=0)
    proof.complaints        # [] if all of it holds

Every text goes twice through the built-in rewards that look at texts, the second time in other company, and every tenth
batch alone and by the clock. Nothing may crash or be left ungraded; 99 of a hundred texts that are graded alone may
take twice the deadline at most; every text must score the same twice; memory may not grow by more than 5 %; and
ordinary answers must be graded as fast afterwards as before (graders_pace.py).
"""

from __future__ import annotations

import os
import statistics
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from groupwise.rewards.contract import RewardFunction
from groupwise.rewards.graders_pace import NAMES, Pace, graded
from groupwise.rewards.hostile import hostile_texts
from groupwise.rewards.load import load_reward
from groupwise.rewards.outcomes import Grade

DEADLINE = 2.0
"""Seconds of CPU time that one text may take in a verifier's process."""

_BATCH = 100
_ALONE = 10
"""Of so many batches of the second round, one is graded text by text."""

ENOUGH = 4_000
"""Texts from which on memory is judged: before, the largest of each kind has not been seen a few times, and what the
allocator holds for the next of them still grows (by a third, over the first thousand)."""

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
    growth: float | None
    """Of resident memory, from the second eighth of the texts to the last, as a share; None for too few texts."""
    pace: Pace

    @property
    def complaints(self) -> list[str]:
        """What does not hold, in words."""
        found = [
            (self.unknown > 0, f"{self.unknown} texts could not be graded"),
            (self.slowest > 2 * DEADLINE, f"99 of 100 took up to {self.slowest:.1f} s, more than {2 * DEADLINE:g} s"),
            (self.changed > 0, f"{self.changed} texts scored otherwise the second time"),
            ((self.growth or 0.0) > 0.05, f"memory grew by {self.growth or 0.0:.0%}"),
            (self.pace.complaint != "", self.pace.complaint),
        ]
        return [words for is_wrong, words in found if is_wrong]


@dataclass(slots=True)
class _Counts:
    unknown: int = 0
    limited: int = 0
    changed: int = 0
    scores: array[int] = field(default_factory=lambda: array("q"))
    """A hash of each text's parts: to keep the parts would be memory that grows."""
    resident: list[int] = field(default_factory=list[int])
    alone: list[float] = field(default_factory=list[float])

    def first(self, grades: Sequence[Grade]) -> None:
        """Take in grades of the first round."""
        self.unknown += sum(grade.outcome == "unknown" for grade in grades)
        self.limited += sum(grade.outcome == "wrong" for grade in grades)
        self.scores.extend(map(_score, grades))

    def second(self, grades: Sequence[Grade], begin: int) -> None:
        """Compare grades of the second round with those of the first."""
        self.unknown += sum(grade.outcome == "unknown" for grade in grades)
        self.changed += sum(_score(grade) != self.scores[place] for place, grade in enumerate(grades, begin))


def prove(
    count: int, seed: int = 0, heard: Callable[[int, int], object] = lambda done, total: None, rounds: int = 120
) -> Proof:
    """Grade so many hostile texts twice. `heard` is told how many of how many are done; `rounds` are those by which the
    pace is judged."""
    rewards = [load_reward(name) for name in NAMES]
    pace, began, counts = Pace.begun(rewards, rounds), time.perf_counter(), _Counts()
    for begin, batch in _batches(count, seed, _BATCH):
        counts.first(graded(rewards, batch))
        counts.resident.append(_resident())
        heard(begin + len(batch), 2 * count)
    for number, (begin, batch) in enumerate(_batches(count, seed, _BATCH // 2)):  # in other company
        grades = _one_by_one(rewards, batch, counts) if number % _ALONE == 0 else graded(rewards, batch)
        counts.second(grades, begin)
        counts.resident.append(_resident())
        heard(count + begin + len(batch), 2 * count)
    seconds = time.perf_counter() - began
    return Proof(
        texts=count,
        seconds=seconds,
        unknown=counts.unknown,
        limited=counts.limited,
        slowest=sorted(counts.alone)[min(int(len(counts.alone) * 0.99), len(counts.alone) - 1)],
        changed=counts.changed,
        growth=growth(counts.resident) if count >= ENOUGH else None,
        pace=pace.ended(),
    )


def _batches(count: int, seed: int, first: int) -> Iterator[tuple[int, list[str]]]:
    """Where each begins, and its texts: `first` in the first one, as many as fit in the others."""
    texts, begin = hostile_texts(count, seed), 0
    while begin < count:
        size = min(_BATCH if begin else first, count - begin)
        yield begin, [text for _, text in (next(texts) for _ in range(size))]
        begin += size


def _one_by_one(rewards: Sequence[RewardFunction], batch: Sequence[str], counts: _Counts) -> list[Grade]:
    grades: list[Grade] = []
    for text in batch:
        started = time.perf_counter()
        grades += graded(rewards, [text])
        counts.alone.append(time.perf_counter() - started)
    return grades


def _score(grade: Grade) -> int:
    return hash(repr([*grade.parts.values()]))


def growth(resident: Sequence[int]) -> float:
    """How much more the last eighth of these holds than the second, in the middle: a share of it.

    Example: `[9] + [10] * 6 + [11]` -> 0.1; what the first eighth warms up does not count
    """
    eighth = len(resident) // 8
    return statistics.median(resident[-eighth:]) / statistics.median(resident[eighth : 2 * eighth]) - 1


def _resident() -> int:
    """Bytes of memory that this process holds."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except OSError:  # no /proc here
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)
