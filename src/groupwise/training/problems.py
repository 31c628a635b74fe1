"""Which problems a step looks at: in a fresh order every epoch, or of those the ones that are neither too easy nor too
hard. The same for the same seed.

    problems = problems_of(recipe.problems, parts.train.problems, recipe.seed)
    groups = ...                       # of problems.next(8)
    problems.observe(groups)           # what came back, for those who learn from it
    problems.restore(problems.state()) # plain JSON values
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from groupwise.config.problems import ProblemsSection
from groupwise.types import Group, Problem

Item = TypeVar("Item")


class Supply(Protocol):
    """Something endless that is drawn from, and can be left and taken up again."""

    @property
    def epoch(self) -> float:
        """How many times through all that there is so far."""
        ...

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, as plain JSON values."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        ...


class Problems(Supply, Protocol):
    """An endless supply of problems."""

    def next(self, count: int) -> list[Problem]:
        """The next so many."""
        ...

    def observe(self, groups: Sequence[Group]) -> None:
        """Learn from graded groups."""
        ...


def problems_of(section: ProblemsSection, problems: Sequence[Problem], seed: int) -> Problems:
    """The supply that the recipe asks for."""
    if section.order == "difficulty":
        return ByDifficulty(problems, seed, section)
    return InOrder(problems, seed, shuffle=section.order == "epochs")


class Epochs(Generic[Item]):
    """Draws without replacement; when all were drawn, shuffles anew. Batches run across the end of an epoch, so no
    item is ever left out.

    Example: `Epochs(problems, seed=0).batch(start=16, size=8)` are the problems of the third step of eight.
    """

    def __init__(self, items: Sequence[Item], seed: int, *, shuffle: bool = True) -> None:
        assert items, "nothing to draw from"
        self._items = items
        self._seed = seed
        self._shuffle = shuffle
        self._orders: dict[int, list[int]] = {}

    def batch(self, start: int, size: int) -> list[Item]:
        """The items `start` to `start + size` of the endless sequence of epochs."""
        return [self._items[self._index(place)] for place in range(start, start + size)]

    def epoch(self, drawn: int) -> float:
        """How many times through the items so many draws are."""
        return drawn / len(self._items)

    def _index(self, place: int) -> int:
        epoch, within = divmod(place, len(self._items))
        if not self._shuffle:
            return within
        if epoch not in self._orders:
            generator = np.random.Generator(np.random.Philox(key=[self._seed, epoch]))
            self._orders = {e: o for e, o in self._orders.items() if e >= epoch - 1}
            self._orders[epoch] = generator.permutation(len(self._items)).tolist()
        return self._orders[epoch][within]


class InOrder(Generic[Item]):
    """Every problem once an epoch; demonstrations too.

    Example: after `InOrder(problems, seed=0).next(8)` its state is `{"place": 8}`.
    """

    def __init__(self, items: Sequence[Item], seed: int, *, shuffle: bool = True) -> None:
        self._epochs = Epochs(items, seed, shuffle=shuffle)
        self._place = 0

    @property
    def epoch(self) -> float:
        """How many times through all items so far."""
        return self._epochs.epoch(self._place)

    def next(self, count: int) -> list[Item]:
        """The next so many."""
        self._place += count
        return self._epochs.batch(self._place - count, count)

    def observe(self, groups: Sequence[Group]) -> None:
        """Nothing is learnt: the order is the order."""

    def state(self) -> dict[str, Any]:
        """Where the sequence of epochs stands."""
        return {"place": self._place}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on there."""
        self._place = _place_in(state)


def _place_in(state: Mapping[str, Any]) -> int:
    """How many problems were drawn. ValueError for a number that no run gets to."""
    place = int(state["place"])
    if not 0 <= place < 1 << 53:
        raise ValueError(f"place = {place}")
    return place


class ByDifficulty:
    """Of the next `candidates * count` problems of the epoch those whose pass rate is expected nearest to `target`.

    What is expected is drawn from a Beta distribution of what this run has seen of the problem (Thompson sampling), so
    that problems which were never met are tried, and those that were hopeless once are tried again now and then. What
    was seen fades by `memory` each time, for the policy changes. A problem that is passed over comes again in the next
    epoch.

    Can Prompt Difficulty be Online Predicted, arXiv 2507.04632 (MoPPS).

    Example: a problem of which 6 of 8 completions were right has Beta(1 + 6, 1 + 2), mean 0.7.
    """

    def __init__(self, problems: Sequence[Problem], seed: int, section: ProblemsSection) -> None:
        self._epochs = Epochs(problems, seed)
        self._seed = seed
        self._section = section
        self._place = 0
        self._range: list[float] = []
        self._seen: dict[str, list[float]] = {}

    @property
    def epoch(self) -> float:
        """How many times all problems were looked at."""
        return self._epochs.epoch(self._place)

    def next(self, count: int) -> list[Problem]:
        """The next so many, in the order of the epoch."""
        size = math.ceil(count * self._section.candidates)
        candidates = self._epochs.batch(self._place, size)
        # A stream of its own beside those of the epochs' orders, which have the number of the epoch in its place.
        random = np.random.Generator(np.random.Philox(key=[self._seed, 2**63 + self._place]))
        expected = [float(random.beta(*self._beliefs(problem.id))) for problem in candidates]
        ranked = sorted(range(size), key=lambda i: abs(expected[i] - self._section.target))
        self._place += size
        return [candidates[i] for i in sorted(ranked[:count])]

    def observe(self, groups: Sequence[Group]) -> None:
        """Add what was seen of each problem to what fades of it: how many completions, and the sum of their rewards."""
        for group in groups:
            rewards = [self._grade(reward) for reward in group.rewards_G if reward is not None]
            if not rewards:
                continue
            self._range = [min([*self._range, *rewards]), max([*self._range, *rewards])]
            number, total = self._seen.get(group.problem.id, (0.0, 0.0))
            memory = self._section.memory
            self._seen[group.problem.id] = [memory * number + len(rewards), memory * total + math.fsum(rewards)]

    def pass_rate(self, problem_id: str) -> float | None:
        """What the run has seen of it, old sights faded; `None` if nothing."""
        number, passed = self._passed(problem_id)
        return passed / number if number else None

    def state(self) -> dict[str, Any]:
        """Where the sequence stands, the range of rewards, and what was seen by problem."""
        return {
            "place": self._place,
            "range": list(self._range),
            "seen": {name: list(pair) for name, pair in self._seen.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on there."""
        self._place = _place_in(state)
        self._range = [float(end) for end in state["range"]]
        self._seen = {str(name): [float(value) for value in pair] for name, pair in state["seen"].items()}

    def _grade(self, reward: float) -> float:
        passing = self._section.passing
        return reward if passing is None else float(reward >= passing)

    def _beliefs(self, problem_id: str) -> tuple[float, float]:
        number, passed = self._passed(problem_id)
        return 1.0 + passed, 1.0 + max(number - passed, 0.0)

    def _passed(self, problem_id: str) -> tuple[float, float]:
        """Completions seen, and how many of them passed; nothing is known while all rewards of the run are equal."""
        number, total = self._seen.get(problem_id, (0.0, 0.0))
        lowest, highest = (0.0, 1.0) if self._section.passing is not None else self._range or (0.0, 0.0)
        if highest <= lowest:
            return 0.0, 0.0
        return number, min(max((total - number * lowest) / (highest - lowest), 0.0), number)
