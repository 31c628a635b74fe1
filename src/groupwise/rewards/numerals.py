"""Read the number that a text states, exactly, or say that it states none.

    "$1,234.50"   2469/2        thousands separators and currency signs are spelling
    "72 clips."   72            so are a unit and a full stop behind the number
    "-3/4"        -3/4          fractions are exact, also as \\frac{3}{4}
    "50%"         50            a percent sign counts as a unit: 50% is written 50, not 0.5
    "3, 4 or 5"   None          a text with several numbers states none of them
    "1,23"        None          a comma that separates no thousands is not guessed at

Values are `Fraction`s: 0.1 is a tenth, 1e3 is a thousand, and equality needs no tolerance. Any text is read in time
proportional to its length, and a number of more than 400 characters counts as none (Python's own conversion from text
is quadratic, and refuses above 4,300 digits).
"""

from __future__ import annotations

import re
from collections import deque
from fractions import Fraction
from itertools import islice

_LONGEST = 400
_SEPARATORS = ",'\u00a0\u2009\u202f"
_MINUS = "\u2212\uff0d-"  # the hyphen last: inside of [...] it would make a range
_DIGITS = rf"(?:\d{{1,3}}(?:[{_SEPARATORS}]\d{{3}})+(?!\d)|\d+)"

# No two neighbouring parts of this pattern can match the same character, so there is nothing to backtrack into.
_NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![\w)\]}}])[+{_MINUS}])?      # 3-5 is no -5
    (?:\\?[$€£¥₹]\ ?)?
    (?P<inner>(?<=[$€£¥₹\ ])[{_MINUS}](?=\d))?  # $-5
    (?:
        \\[dt]?frac\{{(?P<top>{_DIGITS})\}}\{{(?P<bottom>{_DIGITS})\}}
      | (?P<whole>{_DIGITS})(?P<decimals>\.\d+)?(?P<exponent>[eE][-+]?\d{{1,3}}(?!\d))?(?:\ ?/\ ?(?P<over>{_DIGITS}))?
      | (?<![.\d])(?P<bare>\.\d+)
    )
    """,
    re.VERBOSE,
)
_DIGIT = re.compile(r"\d")
_INTEGER = re.compile(rf"[+{_MINUS}]?{_DIGITS}")
_WITHOUT_SEPARATORS = str.maketrans("", "", _SEPARATORS)


def number(text: str) -> Fraction | None:
    """The value of the one number in the text; None if there is none, or more than one.

    Example: `number("The total is $1,000.") == 1000`, `number("3 * 4 = 12") is None`
    """
    if _DIGIT.search(text) is None:  # a megabyte of letters is read eight times as fast
        return None
    found = list(islice(_NUMBER.finditer(text), 2))
    return _value(found[0]) if len(found) == 1 else None


def last_number(text: str) -> str | None:
    """The last number in the text, as it is written. Example: `"3 * 4 = 12 clips"` -> `"12"`"""
    found = deque(_NUMBER.finditer(text), maxlen=1)
    return found[0].group().strip() if found else None


def is_integer(text: str) -> bool:
    """Whether the text is an integer and nothing else: `-5` and `1,000` are, `3.0`, `5 km` and `²` are not."""
    return _INTEGER.fullmatch(text.strip()) is not None


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match.group()) > _LONGEST:
        return None
    part = match.groupdict(default="")
    value = Fraction(_plain(part["top"] or part["whole"] or "0"))
    decimals = part["decimals"] or part["bare"]
    if decimals:
        value += Fraction(int(decimals[1:]), 10 ** (len(decimals) - 1))
    if part["exponent"]:
        value *= Fraction(10) ** int(part["exponent"][1:])
    divisor = _plain(part["bottom"] or part["over"] or "1")
    if divisor == 0:
        return None
    negative = (part["sign"] in _MINUS and part["sign"] != "") != (part["inner"] != "")
    return (-value if negative else value) / divisor


def _plain(digits: str) -> int:
    return int(digits.translate(_WITHOUT_SEPARATORS))
