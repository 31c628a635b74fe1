"""How cost grows: our step, and TRL's at a few points, against group size, prompt, completion cap and vocabulary.

The models here never end a completion, so that each has as many tokens as its cap and nothing is left to chance.
Each series has a check in words: what it would mean for cost to grow as it should, and whether it did.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

from compare import per_token, seconds
from sides import MeasurementError, ours, say, trl
from workloads import SMALL, Workload

ENDLESS = replace(SMALL, ends_after=math.inf)
BASE = Workload("growth", "", ENDLESS, 4, 8, (256, 256), 64)


@dataclass(frozen=True, slots=True)
class Series:
    """One axis: its values, what a step is at each of them, and at which of them TRL is measured too."""

    name: str
    axis: str
    about: str
    values: tuple[int, ...]
    at: Callable[[int], Workload]
    trl_at: tuple[int, ...]


SERIES = (
    Series(
        "group",
        "G, with 2,048 tokens in all",
        "4 prompts of 1,000 tokens; the completion tokens of a step stay 2,048, so a group of twice the size has "
        "completions of half the length",
        (2, 4, 8, 16, 32, 64),
        lambda g: replace(BASE, group=g, prompt=(1000, 1000), cap=512 // g),
        (2, 8, 32),
    ),
    Series(
        "group_at_fixed_length",
        "G, with 32 tokens each",
        "4 prompts of 1,000 tokens, each completion has 32 tokens",
        (2, 4, 8, 16, 32, 64),
        lambda g: replace(BASE, group=g, prompt=(1000, 1000), cap=32),
        (),
    ),
    Series(
        "prompt",
        "tokens of a prompt",
        "4 prompts, G = 8, completions of 64 tokens",
        (64, 128, 256, 512, 1024, 2048),
        lambda p: replace(BASE, prompt=(p, p)),
        (64, 512, 1024),
    ),
    Series(
        "cap",
        "tokens of a completion",
        "4 prompts of 256 tokens, G = 8",
        (32, 64, 128, 256, 512, 1024),
        lambda c: replace(BASE, cap=c),
        (64, 256),
    ),
    Series(
        "vocabulary",
        "size of the vocabulary",
        "4 prompts of 256 tokens, G = 8, completions of 64 tokens",
        (128, 8_192, 32_768, 151_936),
        lambda v: replace(BASE, shape=replace(ENDLESS, vocabulary=v)),
        (128, 32_768),
    ),
)


def grow(series: Series, steps: int) -> dict:
    """Seconds and peak memory at each value."""
    say(f"growth: {series.axis}")
    points = []
    for value in series.values:
        workload = series.at(value)
        result = ours(workload, steps=steps + 1)
        point = {
            "value": value,
            "seconds": seconds([result]),
            "per_token": per_token([result]),
            "mb": result["peak_mb"],
        }
        if value in series.trl_at:
            try:
                theirs = trl(workload, result, steps=2, generate="hf", micro_batch=min(8, workload.completions))
                point |= {"trl_seconds": seconds([theirs]), "trl_mb": theirs["peak_mb"]}
            except MeasurementError as failure:
                say(f"    failed: {failure}")
        points.append(point)
    return {"points": points}


@dataclass(frozen=True, slots=True)
class Check:
    """A sentence about how cost should grow, the figure, and whether it is as it should be."""

    says: str
    figure: float
    limit: float

    @property
    def holds(self) -> bool:
        return self.figure <= self.limit


def checks(series: Series, points: list[dict]) -> list[Check]:
    """What the figures of a series have to be, if nothing is computed twice and nothing is quadratic."""
    time = {point["value"]: point["seconds"] for point in points}
    memory = {point["value"]: point["mb"] for point in points}
    first, *_, last = series.values
    worst = max(time[high] / time[low] for low, high in pairwise(series.values))
    if series.name == "group":
        return [Check("doubling G at the same number of completion tokens: at most this factor of time", worst, 1.5)]
    if series.name == "group_at_fixed_length":
        return [Check("doubling G, and the completion tokens with it: at most this factor of time", worst, 2.0)]
    if series.name == "prompt":
        whole = Check(f"a prompt {last // first} times as long: this factor of time", time[last] / time[first], 16)
        return [Check("doubling the prompt: at most this factor of time, where G is 8", worst, 2.5), whole]
    if series.name == "cap":
        return [Check("doubling the completions: at most this factor of time", worst, 2.5)]
    matrix = last * SMALL.hidden * 4 / 2**20
    copies = (memory[last] - memory[first]) / matrix
    return [Check("the largest vocabulary: memory for this many copies of its embedding matrix", copies, 8)]
