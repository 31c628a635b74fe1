r"""What is too large to be parsed as an expression: found by counting, before any parser sees it.

A right answer never comes near these bounds. What does costs a parser seconds or for ever: towers of exponents, nested
fractions, factorials, thousands of parentheses. (math-verify 0.9.0 hangs in C code, where no timer of its own can stop
it, on `\frac{5^{(5^{(5^{(5^5)})}-4)}-5}{16}`.)
"""

from __future__ import annotations

import re

_LONGEST = 600
_DEPTH = 12
_DIGITS = 40
_COMMANDS = 60
_POWERS = 12
_LARGEST_EXPONENT = 4
"""Digits of a number in an exponent."""

_EXPONENT = re.compile(r"(?:\^|\*\*)\s*\{?\s*[-+(]*\s*(\d+)")
# What stands in an exponent is one character or digits, or whatever braces and parentheses hold: `a^2b^3` is no tower.
_TOWER = re.compile(r"(?:\^|\*\*)\s*(?:[{(][^{}]{0,40}?|[-+]?\d*|[A-Za-z])\s*(?:\^|\*\*)")
_BINOMIAL = re.compile(r"\\[dt]?binom\s*\{[^{}]*(?:\d{5}|\^)")
_FACTORIAL = re.compile(r"(\d+|[)}])\s*!")


def too_large(expression: str) -> str | None:
    """Which bound an expression is beyond; None if it may be parsed."""
    if len(expression) > _LONGEST:
        return f"{len(expression):,} characters, more than {_LONGEST}"
    checks = (
        (_depth(expression) > _DEPTH, f"nested more than {_DEPTH} deep"),
        (re.search(rf"\d{{{_DIGITS + 1}}}", expression) is not None, f"a number of more than {_DIGITS} digits"),
        (expression.count("\\") > _COMMANDS, f"more than {_COMMANDS} commands"),
        (expression.count("^") + expression.count("**") > _POWERS, f"more than {_POWERS} powers"),
        (_TOWER.search(expression) is not None, "a power of a power"),
        (any(len(found[1]) > _LARGEST_EXPONENT for found in _EXPONENT.finditer(expression)), "a huge exponent"),
        (_BINOMIAL.search(expression) is not None, "a huge binomial coefficient"),
        (any(_is_huge(found[1]) for found in _FACTORIAL.finditer(expression)), "a huge factorial"),
    )
    return next((why for is_beyond, why in checks if is_beyond), None)


def _depth(expression: str) -> int:
    """How deep its parentheses, brackets and braces nest, balanced or not."""
    depth = deepest = 0
    for character in expression:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _is_huge(operand: str) -> bool:
    return not operand.isdigit() or len(operand) > 3
