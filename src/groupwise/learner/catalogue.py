"""Everything that `[algorithm]` can say, read from the presets and the tables themselves.

presets()[0].name, presets()[0].about        "grpo", "DeepSeekMath, arXiv 2402.03300"
entries("surrogate")[0].summary              "PPO's and GRPO's `-min(ratio * A, clip(ratio, ...) * A)`."
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from groupwise.config.presets import ALL_PRESETS, Preset
from groupwise.config.sections import AlgorithmSection
from groupwise.learner.algorithm import TABLES
from groupwise.maths.tables import REQUIRED, bounds_of, data_of, settings_of


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of an entry, under its name in a recipe. `default` is `None` where the recipe sets it in any case, or
    has to."""

    name: str
    default: object | None
    bounds: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of a table: what it does, what it looks at, and what can be set."""

    kind: str
    name: str
    summary: str
    papers: tuple[str, ...]
    data: tuple[str, ...]
    settings: tuple[Setting, ...]


def kinds() -> list[str]:
    """The keys of `[algorithm]` that name entries: `advantage`, `ratio`, `surrogate`, ..."""
    return [table.kind for table in TABLES]


def entries(kind: str) -> list[Entry]:
    """The rows of one table, in order. Example: `entries("ratio")[1].name` is `"sequence"`."""
    (table,) = (table for table in TABLES if table.kind == kind)
    return [_entry(kind, name, function) for name, function in table.items()]


def offered(kind: str) -> tuple[str, ...]:
    """The data that an entry of this table may name, a user's own included."""
    return next(table.offers for table in TABLES if table.kind == kind)


def presets() -> tuple[Preset, ...]:
    """The presets, in order."""
    return ALL_PRESETS


def changed(preset: Preset) -> Mapping[str, Any]:
    """What a preset sets otherwise than `grpo` does; for `grpo` itself all of it."""
    base = ALL_PRESETS[0].entries
    return preset.entries if preset.entries == base else {k: v for k, v in preset.entries.items() if base.get(k) != v}


def _entry(kind: str, name: str, function: Any) -> Entry:
    text = inspect.getdoc(function) or ""
    summary = " ".join(text.split("\n\n")[0].split())
    hints = get_type_hints(function, include_extras=True)
    settings = tuple(
        Setting(_place(setting), None if default is REQUIRED else default, str(bounds_of(hints.get(setting))))
        for setting, default in settings_of(function).items()
    )
    papers = dict.fromkeys(re.findall(r"arXiv \d{4}\.\d{5}|doi \S+?(?=[;,.]?\s)|https://\S+", text))
    return Entry(kind, name, summary, tuple(papers), data_of(function), settings)


def _place(setting: str) -> str:
    if setting == "max_new_tokens":
        return "sampling.max_new_tokens"
    return f"algorithm.{setting}" if setting in AlgorithmSection.model_fields else f"algorithm.settings.{setting}"
