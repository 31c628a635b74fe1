"""The table of built-in rewards. To add one: write it in a file of this room and enter it here.

All but the last seven take time linear in the text, which is why they run in the trainer's process: sending a batch to
another one and back costs more than grading it. `maths` sends what it cannot decide, `regex` what google-re2 does not
know and `json_schema` everything to processes that can be killed; the code rewards have their sandbox; `reward_model`
and `judge` wait for a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from groupwise.rewards.answers import correctness, integer
from groupwise.rewards.choices import choice
from groupwise.rewards.code import code_stdio, code_tests
from groupwise.rewards.format import soft_format, strict_format, tag_count, tags_present
from groupwise.rewards.habits import boxed, language_share, repetition, tag_order, think_format
from groupwise.rewards.judge import judge
from groupwise.rewards.lengths import cosine_length, soft_overlong
from groupwise.rewards.maths.verify import maths
from groupwise.rewards.patterns import json_schema, regex
from groupwise.rewards.reward_models import reward_model
from groupwise.rewards.shaping import length, reached_end

BUILT_IN: Mapping[str, Callable[..., Any]] = {
    "correctness": correctness,
    "integer": integer,
    "choice": choice,
    "strict_format": strict_format,
    "soft_format": soft_format,
    "tag_count": tag_count,
    "tags_present": tags_present,
    "tag_order": tag_order,
    "think_format": think_format,
    "boxed": boxed,
    "length": length,
    "cosine_length": cosine_length,
    "soft_overlong": soft_overlong,
    "reached_end": reached_end,
    "repetition": repetition,
    "language_share": language_share,
    "maths": maths,
    "regex": regex,
    "json_schema": json_schema,
    "code_stdio": code_stdio,
    "code_tests": code_tests,
    "reward_model": reward_model,
    "judge": judge,
}
