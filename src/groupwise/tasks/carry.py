"""Column arithmetic as taught at school: what a demonstration of a sum says, digit by digit.

    347+589        7+9+0=16;4+8+1=13;3+5+1=09
    523-87         13-7-0=6;12-8-1=3;5-0-1=4

Columns go from right to left, and every column says all that it takes: two digits, and the carry or loan. The last
digit of its result is a digit of the whole result; the ten in front of it is the carry, which the next column adds. In
a difference, a column that is too small is given ten, which the next column pays back. That every column has one form
and nothing is left to remember is what makes it easy to learn for a small model.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest


def worked_out(terms: Sequence[int]) -> str:
    """The columns of a sum of signed terms; with more than two terms, a line each, ending in the running total.

    Example: `worked_out([347, 589])` -> `"7+9+0=16;4+8+1=13;3+5+1=09"`; `worked_out([5, 3, -9])` has two lines,
    `"5+3+0=08 so 8"` and `"9-8-0=1"`.
    """
    lines: list[str] = []
    running = terms[0]
    for term in terms[1:]:
        lines.append(_columns(running, term))
        running += term
        lines[-1] += f" so {running}"
    return "\n".join(lines).removesuffix(f" so {running}")


def _columns(running: int, term: int) -> str:
    """The columns of `running + term`: an addition of sizes when the signs agree, else the smaller from the larger."""
    small, large = sorted((abs(running), abs(term)))
    if (running < 0) == (term < 0):
        return added(abs(running), abs(term))
    return subtracted(large, small)


def added(first: int, second: int) -> str:
    """Columns of a sum. Example: 95 + 8 -> `"5+8+0=13;9+0+1=10"`, the last carry leading the whole result."""
    columns: list[str] = []
    carry = 0
    for a, b in _digits(first, second):
        columns.append(f"{a}+{b}+{carry}={a + b + carry:02d}")
        carry = (a + b + carry) // 10
    return ";".join(columns)


def subtracted(large: int, small: int) -> str:
    """Columns of a difference, the larger number first. A column that is too small takes ten from the next one.

    Example: 523 - 87 -> `"13-7-0=6;12-8-1=3;5-0-1=4"`
    """
    columns: list[str] = []
    borrowed = 0
    for a, b in _digits(large, small):
        top = a + 10 if a - b - borrowed < 0 else a
        columns.append(f"{top}-{b}-{borrowed}={top - b - borrowed}")
        borrowed = int(top > a)
    return ";".join(columns)


def _digits(first: int, second: int) -> list[tuple[int, int]]:
    """Pairs of digits from right to left, the shorter number filled up with zeros."""
    pairs = zip_longest(reversed(str(first)), reversed(str(second)), fillvalue="0")
    return [(int(a), int(b)) for a, b in pairs]
