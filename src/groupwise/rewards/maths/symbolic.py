r"""Are two answers the same expression? math-verify's word, in a process that may be killed over it.

Only its LaTeX parser is used, never the one for plain expressions, which hands its input to sympy's `parse_expr`, and
that evaluates it as Python. Its own timers are off: they are signals, which no C code hears.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def same(pair: Sequence[str]) -> bool:
    r"""Whether an answer and the gold one are equal as expressions, sets, intervals or equations.

    Example: `same([r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"])`
    """
    import logging

    from math_verify import verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    found, gold = (_parsed(text) for text in pair)
    if not found or not gold:
        return False
    return bool(verify(gold, found, timeout_seconds=None))


def _parsed(text: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    return parse(
        f"\\boxed{{{text}}}",
        extraction_config=[LatexExtractionConfig()],
        fallback_mode="no_fallback",
        parsing_timeout=0,
    )
