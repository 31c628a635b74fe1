"""Column arithmetic as taught at school: what a demonstration of a sum says, digit by digit.

    347+589        7+9=16, 4+8+1=13, 3+5+1=9 so 936
    523-87         13-7=6, 12-8-1=3, 5-0-1=4 so 436

Columns go from right to left. The last digit of each column's result is a digit of the whole result; the ten in front
of it is the carry, which the next column adds. In a difference, a column that is too small is given ten, which the
next column pays back.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest


def worked_out(terms: Sequence[int]) -> str:
    """The running total of signed terms, one line per term after the first.

    Example: `worked_out([347, 589])` -> `"7+9=16, 4+8+1=13, 3+5+1=9 so 936"`; `worked_out([5, 3, -9])` has two lines,
    `"5+3=8 so 8"` and `"9-8=1 so -1"`.
    """
    lines: list[str] = []
    running = terms[0]
    for term in terms[1:]:
        lines.append(f"{_columns(running, term)} so {running + term}")
        running += term
    return "\n".join(lines)


def _columns(running: int, term: int) -> str:
    """The columns of `running + term`: an addition of sizes when the signs agree, else the smaller from the larger."""
    small, large = sorted((abs(running), abs(term)))
    if (running < 0) == (term < 0):
        return added(abs(running), abs(term))
    return subtracted(large, small)


def added(first: int, second: int) -> str:
    """Columns of a sum. Example: 95 + 8 -> `"5+8=13, 9+0+1=10, 1"`, the last carry standing alone."""
    columns: list[str] = []
    carry = 0
    for a, b in _digits(first, second):
        digit_sum = a + b + carry
        columns.append(f"{a}+{b}{'+1' if carry else ''}={digit_sum}")
        carry = digit_sum // 10
    return ", ".join([*columns, "1"] if carry else columns)


def subtracted(large: int, small: int) -> str:
    """Columns of a difference, the larger number first. A column that is too small takes ten from the next one.

    Example: 523 - 87 -> `"13-7=6, 12-8-1=3, 5-0-1=4"`
    """
    columns: list[str] = []
    borrowed = 0
    for a, b in _digits(large, small):
        difference = a - b - borrowed
        top = a + 10 if difference < 0 else a
        columns.append(f"{top}-{b}{'-1' if borrowed else ''}={top - b - borrowed}")
        borrowed = int(difference < 0)
    return ", ".join(columns)


def _digits(first: int, second: int) -> list[tuple[int, int]]:
    """Pairs of digits from right to left, the shorter number filled up with zeros."""
    pairs = zip_longest(reversed(str(first)), reversed(str(second)), fillvalue="0")
    return [(int(a), int(b)) for a, b in pairs]
