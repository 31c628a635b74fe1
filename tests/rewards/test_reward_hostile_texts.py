"""Whatever a model writes, a reward is a number, and soon."""

import asyncio
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groupwise.rewards import (
    Answers,
    as_reward,
    boxed_answer,
    correctness,
    first_answer,
    grade,
    hash_answer,
    integer,
    is_right,
    last_answer,
    last_number,
    length,
    number,
    reached_end,
    soft_format,
    stated_answer,
    strict_format,
    tag_count,
    tags_present,
)

BUILT_INS = [correctness, integer, strict_format, soft_format, tag_count, tags_present, length, reached_end]
EVERY_EXTRACTION = ["answer", "first_answer", "hash", "boxed", "last_number", "stated"]
MEGABYTE = 1_000_000
HOSTILE = {
    "nothing": "",
    "blank": " \t\r\n",
    "nul": "\x00<answer>\x005\x00</answer>",
    "half characters": "\ud800<answer>\udfff</answer>",
    "right to left": "\u202e<answer>5</answer>",
    "escapes": "\x1b]0;title\x07<answer>5</answer>\x1b[2J",
    "one long line": "x" * MEGABYTE,
    "newlines": "\n" * 100_000,
    "digits": f"<answer>{'9' * 200_000}</answer>",
    "decimals": f"<answer>0.{'9' * 200_000}</answer>",
    "separators": f"<answer>{'111,' * 50_000}111</answer>",
    "exponent": "<answer>1e999</answer>",
    "exponents": "<answer>" + "1e9" * 50_000 + "</answer>",
    "fractions": "<answer>" + "1/" * 50_000 + "</answer>",
    "by zero": "<answer>1/0</answer>",
    "nested fractions": "\\boxed{" + "\\frac{" * 15_000 + "1",
    "braces": "\\boxed{" + "{" * 50_000 + "}" * 50_000,
    "boxes": "\\boxed{" * 10_000,
    "opened": "<answer>" * 12_000,
    "closed": "</answer>" * 12_000,
    "nested": "<answer>" * 5_000 + "5" + "</answer>" * 5_000,
    "reasons": "<reasoning>" * 10_000 + "</answer>" * 5_000,
    "pairs": "<reasoning></reasoning><answer></answer>" * 2_000,
    "hashes": "#" * 100_000,
    "minus": "<answer>" + "-" * 100_000 + "5</answer>",
    "currency": "<answer>" + "$ " * 50_000 + "</answer>",
    "blanks in a fraction": "<answer>1" + " " * 100_000 + "/ 2</answer>",
    "regular expression": "<answer>(a+)+$" + "a" * 10_000 + "!</answer>",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_every_built_in_grades_hostile_text_quickly(text):
    prompts = ["p", ({"role": "user", "content": "p"},)]
    answers = Answers(prompts, [text] * 2, [(1, 2)] * 2, ["stop", "length"], {"answer": ["5", "1e3"]})
    rewards = [as_reward(f) for f in BUILT_INS]
    rewards += [as_reward(correctness, settings={"extract": extract}) for extract in EVERY_EXTRACTION]
    started = time.perf_counter()
    rows = asyncio.run(grade(rewards, answers))
    for extract in (last_answer, first_answer, hash_answer, boxed_answer, stated_answer, last_number, number):
        extract(text)
    assert time.perf_counter() - started < 20  # seconds: ample, for a quadratic scan of the longest would take hours
    assert all(math.isfinite(value) for row in rows for value in row.parts.values())


@given(st.text(st.sampled_from(list("<>/#$-.,0123456789eE {}\\ ansbox\n\u2212\ud800\x00")), max_size=60))
def test_no_text_raises(text):
    for extract in (last_answer, first_answer, hash_answer, boxed_answer, stated_answer, last_number, number):
        extract(text)
    assert correctness([text], answer=["5"]) in ([0.0], [1.5], [2.0])
    assert integer([text], extract="stated") in ([0.0], [0.5])
    assert strict_format([text]) == soft_format([text]) == [0.0]
    assert is_right(text, 5.0) in (True, False)


def test_hostile_texts_earn_what_they_deserve():
    assert correctness([HOSTILE["nul"], HOSTILE["right to left"], HOSTILE["nested"]], answer=["5"] * 3) == [
        1.5,
        2.0,
        2.0,
    ]
    assert correctness([HOSTILE["digits"], HOSTILE["by zero"]], answer=["9" * 200_000, "0"]) == [2.0, 0.0]
    assert soft_format([HOSTILE["reasons"]]) == [0.0] and soft_format([HOSTILE["pairs"]]) == [0.5]
    assert strict_format([HOSTILE["pairs"]]) == tag_count([HOSTILE["pairs"]]) == [0.0]
