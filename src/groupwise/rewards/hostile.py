r"""Texts that graders break on: a seeded corpus, for tests and for `groupwise doctor --graders`.

    for kind, text in hostile_texts(10_000, seed=0): ...

Every kind comes again and again, in sizes that are drawn anew, inside and outside of the marks in which answers stand:
emptiness, NUL, half characters, text that runs backwards, escape codes, lines of a megabyte, endless digits, nesting,
towers of exponents, factorials, thousands of boxes, unclosed marks, strings that regular expressions despair of, JSON
bombs, HTML, the prompt echoed, every answer from 1 to 1000, Python that would like to be evaluated.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

_PYTHON = (
    "__import__('os').system('touch /tmp/owned')",
    "[].__class__.__base__.__subclasses__()",
    "exec('raise SystemExit')",
    "open('/etc/passwd').read()",
    "[__import__('os')._exit(0)]",
    "exit()",
    "lambda: (yield)",
    "9**9**9**9",
)
_HTML = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</answer></script><svg onload=alert(1)>",
    "[click](javascript:alert(1))",
    "<!--",
    "<![CDATA[",
)
_TOWERS = (
    r"\dfrac{5^{(5^{(5^{(5^5)})}-4)}-5}{16}",
    "9^{9^{9^9}}",
    "(10^8)!",
    "10^{10^{10}}",
    "((3!)!)!",
    r"\sum_{i=1}^{10^9} i^{10^9}",
    r"\prod_{k=1}^{99999999} k",
    r"2^{2^{2^{2^{2^{2}}}}}",
    "1e999999999",
    r"\binom{10^9}{10^8}",
    r"\int_0^1 x^{x^{x^{x}}} dx",
    r"\sqrt[10^9]{10^{10^9}}",
    "99999999999999999999^999999",
    "1/0",
    r"\frac{0}{0}",
    r"\infty - \infty",
    r"x^{9999}+y^{9999}-z^{9999}",
    r"(x+1)^{4000}",
)

_Make = Callable[[random.Random], str]


def _digits(draw: random.Random) -> str:
    return draw.choice("123456789") + "".join(draw.choices("0123456789", k=draw.choice([30, 5_000, 200_000])))


def _nested(opened: str, inner: str, closed: str) -> _Make:
    def make(draw: random.Random) -> str:
        depth = draw.choice([20, 400, 3_000])
        return opened * depth + inner + closed * depth

    return make


def _anything(draw: random.Random) -> str:
    code_points = (
        draw.choice([draw.randrange(128), draw.randrange(0x10000), draw.randrange(0x110000)]) for _ in range(80)
    )
    return "".join(map(chr, code_points))


KINDS: Mapping[str, _Make] = {
    "empty": lambda draw: "",
    "blank": lambda draw: draw.choice(" \n\t\u00a0\u3000") * draw.choice([1, 1_000]),
    "nul": lambda draw: "\x00" * draw.randrange(1, 50) + "5",
    "half characters": lambda draw: draw.choice(["\ud800", "\udfff\ud800"]) * draw.randrange(1, 20) + "5",
    "backwards": lambda draw: "\u202e" + "5" + "\u202c\u2066\u2069",
    "escapes": lambda draw: (
        draw.choice(["\x1b[2J\x1b[31m", "\x1b]0;owned\x07", "\x1b]8;;http://x\x07", "\x9b31m"]) + "5"
    ),
    "a long line": lambda draw: "a" * draw.choice([10_000, 1_000_000]),
    "newlines": lambda draw: "\n" * draw.choice([1_000, 100_000]),
    "digits": _digits,
    "decimals": lambda draw: "0." + "0" * draw.choice([100, 100_000]) + "1",
    "separators": lambda draw: "1" + ",000" * draw.choice([10, 20_000]),
    "fractions": _nested(r"\frac{", "1", "}{2}"),
    "parentheses": _nested("(", "1", ")"),
    "braces": _nested("{", "1", "}"),
    "unclosed": lambda draw: (
        draw.choice(["<answer>", r"\boxed{", r"\frac{", "(", "[", "```json\n{"]) * draw.choice([1, 5_000])
    ),
    "roots": _nested(r"\sqrt{", "2", "}"),
    "towers": lambda draw: draw.choice(_TOWERS),
    "powers": lambda draw: "^".join(str(draw.randrange(2, 99)) for _ in range(draw.randrange(2, 30))),
    "factorials": lambda draw: str(draw.randrange(10**9)) + "!" * draw.randrange(1, 8),
    "boxes": lambda draw: r"\boxed{5}" * draw.choice([2, 10_000]),
    "tags": lambda draw: "<answer>5</answer>" * draw.choice([2, 10_000]),
    "despair": lambda draw: draw.choice(["a", "ab", " ", "1,"]) * draw.choice([40, 20_000]) + "!",
    "patterns": lambda draw: draw.choice(["(a+)+$", "(?:.*)*x", "[[:alpha:]", "(?=", "\\", "*", "(((((("]),
    "json": lambda draw: draw.choice(['{"a":', "[", '{"a":[']) * draw.choice([50, 5_000]) + "1",
    "html": lambda draw: draw.choice(_HTML),
    "python": lambda draw: draw.choice(_PYTHON),
    "every answer": lambda draw: ", ".join(map(str, range(1, 1001))),
    "minuses": lambda draw: "-" * draw.choice([10, 50_000]) + "5",
    "matrix": lambda draw: r"\begin{pmatrix}" + r"1 & 2 \\ " * draw.choice([2, 2_000]) + r"\end{pmatrix}",
    "sets": lambda draw: r"\{" + ",".join(map(str, range(draw.choice([5, 3_000])))) + r"\}",
    "letters": lambda draw: "+".join(f"x_{{{i}}}" for i in range(draw.choice([3, 500]))),
    "combining": lambda draw: "e" + "\u0301" * draw.choice([5, 20_000]),
    "other digits": lambda draw: draw.choice(["٣٤", "५", "Ⅷ", "½", "²", "五", "５"]),
    "anything": _anything,
    "not a number": lambda draw: draw.choice(["nan", "inf", "-inf", "None", "True", "1e400", "0x41", "1_000"]),
}
"""What a hostile text is made of, by name."""

_WRAPPINGS: tuple[tuple[str, str], ...] = (
    ("", ""),
    ("<answer>", "</answer>"),
    (r"So \boxed{", "}."),
    ("<reasoning>\nyes\n</reasoning>\n<answer>\n", "\n</answer>"),
    ("#### ", ""),
    ("<think>", "</think>"),
    ("$", "$"),
)


def hostile_texts(count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Kind and text, `count` times; the same for the same seed."""
    draw = random.Random(seed)
    kinds = list(KINDS.items())
    for index in range(count):
        name, make = kinds[index % len(kinds)]
        before, after = _WRAPPINGS[draw.randrange(len(_WRAPPINGS))]
        yield name, before + make(draw) + after
