"""What changes memory and speed never changes the gradient: a proof for one's own model and algorithm.

In float64 the gradient of the same groups is computed again and again: in another order, at other token budgets, padded
or packed, activations kept or computed anew, on one rank or divided over two processes. Only rounding may differ: at
most `CLOSE` of the gradient's largest entry.

    for outcome in invariance(Subject(model=section, algorithm=algorithm)):
        print(outcome.name, outcome.difference)      # checkpointing 3.1e-16
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from groupwise.errors import LearnerError
from groupwise.learner.gradients import Bench, Gradient, Subject, Way
from groupwise.learner.two_ranks import TwoRanks

CLOSE = 1e-10
"""The largest difference that is rounding, relative to the gradient's largest entry."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far the gradient of one way is from that of the plainest, relative to its largest entry."""

    name: str
    difference: float

    @property
    def ok(self) -> bool:
        """Whether that is rounding."""
        return self.difference <= CLOSE


def invariance(subject: Subject, splits: int = 3) -> Iterator[Outcome]:
    """Compare every way with the plainest one, `splits` ways to divide the groups over two processes among them; with 0
    no process is started."""
    bench = Bench(subject)
    places = tuple(range(len(bench.groups)))
    plainest = bench.gradient(Way(places))
    if not any(float(gradient.abs().max()) > 0 for gradient in plainest.values()):
        raise LearnerError("the gradient is 0 everywhere, so there is nothing to compare: no token of the probe trains")
    for name, way in ways(bench).items():
        yield Outcome(name, difference(bench.gradient(way), plainest))
    if not splits:
        return
    draw = random.Random(subject.seed)
    with TwoRanks(subject) as ranks:
        for split in range(splits):
            held = tuple(draw.randrange(2) for _ in places) if split else tuple(i % 2 for i in places)
            order = tuple(draw.sample(places, len(places)))
            way = Way(order, token_budget=draw.choice((1, 30, 1 << 20)), ranks=held)
            yield Outcome(
                f"two ranks, {held.count(0)} and {held.count(1)} groups", difference(ranks.gradient(way), plainest)
            )


def ways(bench: Bench) -> dict[str, Way]:
    """The ways of a single process that this model has, by name."""
    places = tuple(range(len(bench.groups)))
    plain = Way(places)
    found = {
        "groups backwards": Way(places[::-1]),
        "a rollout at a time": replace(plain, token_budget=1),
        "30 tokens at a time": replace(plain, token_budget=30),
        "logits of 3 tokens at a time": replace(plain, chunk=3),
    }
    if bench.can_pack:
        found["padded"] = replace(plain, padded=True)
        found["padded, 30 tokens at a time"] = replace(plain, padded=True, token_budget=30)
    if bench.can_checkpoint:
        found["checkpointing"] = replace(plain, checkpointing=True)
    return found


def difference(ours: Gradient, theirs: Gradient) -> float:
    """The largest difference of any entry, relative to the largest entry; infinite where one lacks a parameter."""
    if ours.keys() != theirs.keys():
        return float("inf")
    largest = max((float(gradient.abs().max()) for gradient in theirs.values()), default=0.0)
    apart = max((float((ours[name] - theirs[name]).abs().max()) for name in theirs), default=0.0)
    return apart / largest if largest else apart
