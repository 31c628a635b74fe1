"""Whether an output is the expected one. It is compared here, in the trainer's process, where no program has been."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import Literal, TypeAlias

How: TypeAlias = Literal["lines", "words"]


def same_output(written: str, expected: str, how: How = "lines", tolerance: float = 0.0) -> bool:
    """Line by line, spaces at the ends of lines and blank lines at the end aside; or word by word, however they stand.

    With a tolerance, words that are both numbers may differ by that much, absolutely or relatively.

    Example: `same_output("1 2 \\n\\n", "1 2")`; `same_output("0.3333\\n", "0.33333", tolerance=1e-3)`
    """
    if how == "words" or tolerance:
        rows = zip_longest(*(_rows(text, how) for text in (written, expected)))
        return all(a is not None and b is not None and _same_words(a, b, tolerance) for a, b in rows)
    return _lines(written) == _lines(expected)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _rows(text: str, how: How) -> list[list[str]]:
    return [text.split()] if how == "words" else [line.split() for line in _lines(text)]


def _same_words(a: list[str], b: list[str], tolerance: float) -> bool:
    return len(a) == len(b) and all(_same_word(x, y, tolerance) for x, y in zip(a, b, strict=True))


def _same_word(a: str, b: str, tolerance: float) -> bool:
    if a == b:
        return True
    if not tolerance or max(len(a), len(b)) > 400:
        return False
    try:
        return math.isclose(float(a), float(b), rel_tol=tolerance, abs_tol=tolerance)
    except ValueError:
        return False
