r"""Numbers as answers to mathematical problems spell them, and whether two spellings are one number.

    plain_number(r"\$1,234.50")         2469/2
    plain_number(r"1.2 \times 10^{3}")  1200
    plain_number("1 1/2")               3/2
    plain_number(r"12 \text{ cm}")      12
    plain_number("5x")                  None: something that is no unit stands beside it

Only answers of at most `LONGEST` characters are read: no number is longer, and all patterns are harmless below.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Literal, TypeAlias

from groupwise.rewards.numerals import number

LONGEST = 200

Verdict: TypeAlias = Literal["exact", "numeric", "symbolic", "different", "undecided"]

_DRESS = re.compile(
    r"\\(?:left|right|displaystyle|,|;|!|:|quad|qquad|\ )|\\?\$|\{,\}|\^\{?\\circ\}?|°"
    r"|\\(?:text|mathrm|textbf|mathbf|mbox|operatorname)\b"
)
_POWER_OF_TEN = re.compile(
    r"(?:\s|\\times|\\cdot|[x×*·])*?(?:\\times|\\cdot|[x×*·])\s*10\s*\^\s*(?:\{(-?\d{1,3})\}|(-?\d{1,3})\b)"
)
_MIXED = re.compile(r"([-+]?)(\d{1,18})\s*(?:\\[dt]?frac\{(\d{1,18})\}\{(\d{1,18})\}|\s(\d{1,18})\s?/\s?(\d{1,18}))")
_EQUATION = re.compile(r"\s*(?:[A-Za-z]|\\[a-z]+)(?:_\{?\w{1,9}\}?)?\s*=(?!=)")
_UNITS = frozenset("mgshlLAVWNJKCF")
_AMOUNT = r"(?:\\[dt]?frac\{[\d,]+\}\{[\d,]+\}|\d[\d,.'\u00a0\u2009\u202f]*|\.\d+)"
_NUMERAL = rf"[-+−]?\s*(?:\\?[$€£¥₹]\s?)?[-−]?{_AMOUNT}(?:[eE][-+]?\d+)?(?:\s?/\s?\d[\d,]*)?"
# What may stand behind is one class of characters, and its words are looked at afterwards: a pattern of words that may
# follow each other has as many ways to read a long one as there are to cut it.
_PLAIN = re.compile(
    rf"(?P<number>{_NUMERAL})(?P<percent>\s*(?:\\?%|percent\b))?(?P<unit>(?:[A-Za-z\s./²³€£¥₹]|\^[23])*)"
)
_IN_SENTENCES = frozenset(["is", "it", "we", "of", "the", "so", "are", "answer"])
_CALCULATION = re.compile(r"[\d)}\]]\s*(?:[-+*×÷−]|\\(?:times|cdot|div|pm)\b)\s*[({\[\\]*\s*[\w\\]")


def plain_number(text: str) -> Fraction | None:
    """The number that the text is, with its unit at most; None for anything else."""
    return _read(text)[0]


def is_prose(text: str) -> bool:
    """Whether a text is made of words: two of three letters or more, or one that only sentences have. What stands in
    `\\text{}` and commands do not count."""
    bare = re.sub(r"\\(?:text|mathrm|mbox)\{[^{}]*\}", "", text[:2000])
    words = re.findall(r"(?<![\\A-Za-z])[A-Za-z]{2,}", bare)
    return sum(len(word) > 2 for word in words) > 1 or not _IN_SENTENCES.isdisjoint(map(str.lower, words))


def _read(text: str) -> tuple[Fraction | None, bool]:
    """The number, and whether a percent sign stands behind it."""
    if len(text) > LONGEST:
        return None, False
    bare = _undressed(text)
    mixed = _MIXED.fullmatch(bare)
    if mixed:
        sign, whole, *parts = mixed.groups(default="")
        top, bottom = parts[0] or parts[2], parts[1] or parts[3]
        if int(bottom) == 0:
            return None, False
        value = int(whole) + Fraction(int(top), int(bottom))
        return (-value if sign == "-" else value), False
    found = _PLAIN.fullmatch(_POWER_OF_TEN.sub(lambda m: "e" + (m[1] or m[2]), bare))
    if not found or not _is_unit(found["unit"]):
        return None, False
    return number(found["number"].strip()), bool(found["percent"])


def _is_unit(behind: str) -> bool:
    """Words, or a letter that is a unit and stands apart from the number: `5x` and `5m` may be products."""
    single = [word for word in re.findall(r"[A-Za-z]+", behind) if len(word) == 1]
    return not single or (set(single) <= _UNITS and not behind[0].isalpha())


def _undressed(text: str) -> str:
    """Without what changes the look and not the value, and without `x =` in front."""
    bare = _DRESS.sub(lambda m: "$" if m[0] == r"\$" else "", text.strip().strip("*`"))
    bare = bare.removeprefix("(").removesuffix(")") if re.fullmatch(r"\([^()]*\)", bare) else bare
    equation = _EQUATION.match(bare)
    bare = bare[equation.end() :] if equation else bare
    return re.sub(r"\{([^{}\\]*[A-Za-z][^{}\\]*)\}", r" \1", bare).strip()


def compared(found: str, gold: str) -> Verdict:
    """How two answers compare without looking at them as expressions.

    Two plain numbers are equal or different, and that is final. A percentage is also what it is a hundredth of. Where
    a number is asked for, a calculation (`48 + 24`) is no answer: it would be right without having been worked out.
    Example: `compared("50%", "0.5")` -> "numeric"; `compared("3", "4")` -> "different"; `compared("x+1", "1+x")` ->
    "undecided"
    """
    if found.strip() == gold.strip() or " ".join(found.split()) == " ".join(gold.split()):
        return "exact"
    (one, percent), (other, gold_percent) = _read(found), _read(gold)
    if one is None and other is not None and is_prose(found) and not re.search(r"\d[A-Za-z]|[A-Za-z]\d", found):
        return "numeric" if number(found) == other else "different"
    if one is None and other is not None and _CALCULATION.search(found[:600]):
        return "different"
    if one is None or other is None:
        return "undecided"
    if one == other or (percent != gold_percent and (one == other * 100 if percent else one * 100 == other)):
        return "numeric"
    return "different"
