"""Are ordinary answers graded as fast after hostile texts as before? Measured so that a busy machine cannot answer.

    pace = Pace.begun(rewards)
    ...                         # hostile texts
    pace.ended().complaint      # "" if they are

Minutes lie between before and after, in which the machine may have become faster or slower. So every round here is
paired with a round in a process that has never seen a hostile text, in turn, and what is compared is the ratio of the
two: after, over what it was before. As fast means that the median of that is below 1.05 with all of its 95 % interval,
by order statistics, which know no distribution. Rounds go on until that is decided.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from groupwise.rewards.contract import Answers, RewardFunction
from groupwise.rewards.grading import grade
from groupwise.rewards.load import load_reward
from groupwise.rewards.outcomes import Grade

NAMES = (
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
    "regex",
    "json_schema",
    "maths",
)
"""The built-in rewards that look at texts."""

SLOWER = 1.05
_MOST = 4
"""Times as many rounds as at first, at most, until it is decided."""

_TEXTS = 250
_NOT_TIMED = {"json_schema"}
"""One hop to another process for each text, beside which all the others together cannot be seen."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long rounds took here, as multiples of the same rounds in a fresh process: before, and, in the end, after."""

    rewards: Sequence[RewardFunction]
    fresh: RewardFunction
    before: Sequence[float]
    answers_a_second: float
    """That were graded here, before."""
    after: Sequence[float] = ()

    @classmethod
    def begun(cls, rewards: Sequence[RewardFunction], rounds: int = 120) -> Pace:
        """Start what has to be started, here and there, and measure."""
        timed = [reward for reward in rewards if reward.name not in _NOT_TIMED]
        fresh = load_reward(f"{__name__}:fresh_seconds", folder=Path.cwd())
        _pairs(timed, fresh, 3)
        rate = _TEXTS / min(_round(timed) for _ in range(3))
        return cls(timed, fresh, _pairs(timed, fresh, rounds), rate)

    def ended(self) -> Pace:
        """Measure again, until it is decided."""
        ended, rounds = self, len(self.before)
        while len(ended.after) < _MOST * rounds:
            ended = replace(ended, after=[*ended.after, *_pairs(self.rewards, self.fresh, rounds)])
            low, high = ended.interval
            if high <= SLOWER or low > SLOWER:
                break
        return ended

    @property
    def slowdown(self) -> float:
        """1.0: as fast as before; 2.0: half as fast."""
        return statistics.median(self.after) / statistics.median(self.before)

    @property
    def interval(self) -> tuple[float, float]:
        """Where the slowdown lies, with 95 % certainty. Both medians are uncertain, each by itself."""
        (low, middle, high), (least, base, most) = _median(self.after), _median(self.before)
        down, up = math.hypot(1 - low / middle, most / base - 1), math.hypot(high / middle - 1, 1 - least / base)
        return self.slowdown * (1 - down), self.slowdown * (1 + up)

    @property
    def complaint(self) -> str:
        """What does not hold, in words."""
        low, high = self.interval
        if high <= SLOWER:
            return ""
        words = f"grading takes {self.slowdown:.2f} times as long as before ({low:.2f} to {high:.2f})"
        return words if low > SLOWER else f"not shown that grading is as fast as before: {words}"


def _median(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and on both sides of it where it is with 95 % certainty, by order statistics.

    Example: of 30 values the 9th, the median, and the 22nd
    """
    ordered = sorted(values)
    out = max(math.floor((len(ordered) - 1.96 * math.sqrt(len(ordered))) / 2) - 1, 0)
    return ordered[out], statistics.median(ordered), ordered[-1 - out]


def _pairs(rewards: Sequence[RewardFunction], fresh: RewardFunction, count: int) -> list[float]:
    """So many rounds here over as many in the fresh process, in turn, and each first as often as the other."""
    ratios: list[float] = []
    for number in range(count):
        if number % 2:
            here, there = _round(rewards), _there(fresh)
        else:
            there, here = _there(fresh), _round(rewards)
        ratios.append(here / there)
    return ratios


def _there(fresh: RewardFunction) -> float:
    [only] = graded([fresh], [""])
    assert only.reward is not None, only.why
    return only.reward


def _round(rewards: Sequence[RewardFunction]) -> float:
    """Seconds for ordinary answers, one in fifty of them an expression."""
    texts = [
        r"\boxed{\frac{10}{\sqrt{4}}}" if index % 50 == 0 else f"<answer>{index}</answer>" for index in range(_TEXTS)
    ]
    started = time.perf_counter()
    graded(rewards, texts)
    return time.perf_counter() - started


_own: list[RewardFunction] = []


def fresh_seconds(completions: Sequence[str], **columns: Any) -> list[float]:
    """A round's seconds in the process that this is called in: a reward function, so that it has one of its own."""
    if not _own:
        _own.extend(load_reward(name) for name in NAMES if name not in _NOT_TIMED)
    return [_round(_own) for _ in completions]


def graded(rewards: Sequence[RewardFunction], texts: Sequence[str]) -> list[Grade]:
    """What these texts are worth as answers to a small problem."""
    answers = Answers(
        prompts=["What is 2 + 3?"] * len(texts),
        completions=texts,
        completion_ids=[(1, 2, 3)] * len(texts),
        finish_reasons=["stop" for _ in texts],
        columns={"answer": ["5"] * len(texts)},
    )
    return asyncio.run(grade(rewards, answers))
