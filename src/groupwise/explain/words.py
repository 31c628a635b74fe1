"""What is said beside the numbers, in English and in Chinese: the same keys, the same places for numbers.

words("en")["ratio_other"]      "The ratio is not taken with the reference model, ..."
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

Language: TypeAlias = Literal["en", "zh"]
Words: TypeAlias = Mapping[str, str]


@cache
def words(language: Language) -> Words:
    """All that is said, by key; `{names}` in it are filled in with numbers."""
    return tomllib.loads(Path(__file__).with_name(f"words.{language}.toml").read_text(encoding="utf-8"))
