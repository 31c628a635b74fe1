"""What an evaluation may claim: accuracy, pass@k and before/after, each with its 95 % interval.

    accuracy([True, True, False, True])                    0.750 [0.301, 0.954]
    pass_at_k([(8, 2), (8, 8), (8, 0)], k=1)               0.417 [0.091, 0.836]   (8 samples each; 2, 8 and 0 right)
    change([False] * 9 + [True], [True] * 10)              +0.900 [+0.456, +1.000], p = 0.0039

A score of 128 problems is known to about 8 points either way; printing it without that is how noise becomes progress.
All intervals stay inside the possible range and none collapses to a point at 0 or 1, as the usual "plus or minus
1.96 standard errors" does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share between 0 and 1, its 95 % interval and the number of problems behind it."""

    value: float
    low: float
    high: float
    problems: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Change:
    """How a share moved on the same problems: by how much, how many were won and lost, and whether chance explains it.

    `p` is the probability of a split of won and lost at least this uneven if nothing had changed.
    """

    value: float
    low: float
    high: float
    won: int
    lost: int
    problems: int
    p: float

    def __str__(self) -> str:
        p = "p < 0.0001" if self.p < 1e-4 else f"p = {self.p:.2g}"
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}], {p}"


def accuracy(correct: Sequence[bool]) -> Estimate:
    """The share of right answers, one per problem, with Wilson's score interval (Wilson 1927)."""
    assert correct, "no answers to count"
    share = sum(correct) / len(correct)
    return Estimate(share, *_wilson(share, len(correct)), len(correct))


def pass_at_k(counts: Sequence[tuple[int, int]], k: int) -> Estimate:
    """The chance that at least one of k samples is right, averaged over problems (Chen et al. 2021, arXiv 2107.03374).

    `counts` holds (samples, right samples) of each problem. The interval is Wilson's with an effective number of
    problems: as many independent yes/no trials as would give the mean the variance it shows over problems (Kish's
    design effect), at least the number of problems and at most every disjoint set of k samples. With one sample and
    k = 1 it is the interval of `accuracy`.
    """
    assert counts, "no answers to count"
    chances = [chance_of_a_pass(samples, right, k) for samples, right in counts]
    number = len(chances)
    mean = math.fsum(chances) / number
    sets_of_k = sum(samples // k for samples, _ in counts)
    variance_of_mean = math.fsum((chance - mean) ** 2 for chance in chances) / max(number - 1, 1) / number
    trials = mean * (1 - mean) / variance_of_mean if variance_of_mean > 0 else sets_of_k if 0 < mean < 1 else number
    return Estimate(mean, *_wilson(mean, min(max(trials, number), sets_of_k)), number)


def chance_of_a_pass(samples: int, right: int, k: int) -> float:
    """Unbiased pass@k of one problem: 1 - C(n - c, k) / C(n, k), n samples of which c are right.

    Example: 4 samples, 1 right: pass@2 = 1 - C(3, 2) / C(4, 2) = 1 - 3/6 = 0.5. (1 - (1 - c/n)^k would say 0.4375.)
    """
    assert 0 <= right <= samples, f"{right} right of {samples} samples"
    assert 1 <= k <= samples, f"pass@{k} needs at least {k} samples, got {samples}"
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def change(before: Sequence[bool], after: Sequence[bool]) -> Change:
    """The difference of two accuracies on the same problems, in the same order.

    Paired: only problems whose answer turned right (won) or wrong (lost) speak. p is McNemar's exact test: two-sided
    binomial, won against lost. The interval is Agresti and Min's (2005): two problems more, half a problem more in each
    of won and lost, then 1.96 standard errors.
    """
    assert len(before) == len(after), (
        f"{len(before)} answers before, {len(after)} after: they must be the same problems"
    )
    assert before, "no answers to count"
    number = len(before)
    won = sum(now and not then for then, now in zip(before, after, strict=True))
    lost = sum(then and not now for then, now in zip(before, after, strict=True))
    moved, padded = (won - lost) / (number + 2), number + 2
    half = _Z * math.sqrt((won + lost + 1) / padded - moved**2) / math.sqrt(padded)
    value = (won - lost) / number
    return Change(value, max(-1.0, moved - half), min(1.0, moved + half), won, lost, number, _mcnemar(won, lost))


def _wilson(share: float, trials: float) -> tuple[float, float]:
    """The shares that `share` of so many trials does not contradict, at 95 %."""
    spread = _Z**2 / trials
    middle = (share + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(share * (1 - share) / trials + spread / trials / 4) / (1 + spread)
    # At 0 and 1 the end is exact; rounding would leave it a hair off.
    return (0.0 if share == 0 else max(0.0, middle - half)), (1.0 if share == 1 else min(1.0, middle + half))


def _mcnemar(won: int, lost: int) -> float:
    discordant = won + lost
    tail = sum(math.comb(discordant, count) for count in range(min(won, lost) + 1))
    return min(1.0, 2 * tail / 2**discordant)
