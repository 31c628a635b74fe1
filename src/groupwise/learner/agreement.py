"""Entries that do not go together, and settings that nothing takes: said before any work, never ignored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from groupwise.config.presets import PRESETS
from groupwise.config.sections import AlgorithmSection
from groupwise.errors import RecipeError
from groupwise.maths.tables import Bound, Table, settings_of

Entries = Mapping[str, Bound[Any]]
"""The chosen entries by kind; filters by `filter 0`, `filter 1`, ..."""


def check_agreement(section: AlgorithmSection, entries: Entries, tables: tuple[Table[Any], ...]) -> None:
    """Raise what is wrong first, with its cure."""
    for complaint in _complaints(section, entries, tables):
        raise RecipeError(f"algorithm.{complaint}")


def _complaints(section: AlgorithmSection, entries: Entries, tables: tuple[Table[Any], ...]) -> Iterator[str]:
    yield from _corrected_twice(entries)
    yield from _nothing_to_correct(section, entries)
    yield from _ratios(section, entries)
    yield from _one_by_one(section, entries)
    for name in section.filters:
        if section.filters.count(name) > 1:
            yield f'filters: "{name}" is named {section.filters.count(name)} times. Once is enough'
    yield from _taken_by_nobody(section, entries, tables)


def _corrected_twice(entries: Entries) -> Iterator[str]:
    correction, surrogate = entries.get("correction"), entries["surrogate"]
    if correction is not None and correction.takes("rollout_T") and surrogate.takes("correction_T"):
        yield (
            f'correction = "{correction.name}" weighs whole completions, and surrogate = "{surrogate.name}" takes the '
            'corrections of single tokens into a ratio of its own. Choose one by token, such as "token_truncate"'
        )


def _nothing_to_correct(section: AlgorithmSection, entries: Entries) -> Iterator[str]:
    for kind, entry in entries.items():
        if section.anchor == "sampler" and entry.takes("mismatch_T"):
            key = "correction" if kind == "correction" else "filters"
            yield (
                f'{key}: "{entry.name}" looks at old policy / sampler, which is 1 under anchor = "sampler": the ratio '
                'is that to the sampler already. Drop it, or set anchor = "policy"'
            )


def _ratios(section: AlgorithmSection, entries: Entries) -> Iterator[str]:
    ratio, surrogate = entries["ratio"], entries["surrogate"]
    if ratio.name == "token":
        return
    if surrogate.takes("log_ratio_T") and surrogate.takes("rollout_T") and ":" not in surrogate.name:
        yield (
            f'ratio = "{ratio.name}": surrogate = "{surrogate.name}" makes one ratio of a completion\'s tokens itself. '
            'Set ratio = "token"'
        )
    unused = not surrogate.takes("log_ratio_T") and not (section.kl_ratio and section.beta > 0)
    if unused and ratio.name != PRESETS[section.preset]["ratio"]:
        yield f'ratio = "{ratio.name}" changes nothing: surrogate = "{surrogate.name}" has no ratio. Drop it'


def _one_by_one(section: AlgorithmSection, entries: Entries) -> Iterator[str]:
    advantage = entries["advantage"]
    if not advantage.takes("parts_QG"):
        return
    one_by_one = f'advantage = "{advantage.name}" looks at the reward functions one by one, and'
    if section.beta > 0 and section.kl_in == "reward":
        yield f'kl_in = "reward": {one_by_one} the KL is none of them. Set kl_in = "loss"'
    if section.length_penalty != "none":
        yield (
            f'length_penalty = "{section.length_penalty}": {one_by_one} the penalty is none of them. Set '
            'length_penalty = "none" and penalise the length with a reward function'
        )


def _taken_by_nobody(section: AlgorithmSection, entries: Entries, tables: tuple[Table[Any], ...]) -> Iterator[str]:
    used = {setting for entry in entries.values() for setting in entry.settings}
    preset = PRESETS[section.preset]
    for name in ("clip_low", "clip_high"):
        if name not in used and section.model_dump()[name] != preset[name]:
            yield f"{name}: {_unused(name, tables)} Drop it"
    for name, value in section.settings.items():
        # At its default it is of a recipe that was written out whole, with another entry for once.
        if name not in used and value not in _takers(name, tables).values():
            yield f"settings.{name}: {_unused(name, tables)} Drop it"


def _takers(setting: str, tables: tuple[Table[Any], ...]) -> dict[str, Any]:
    """The entries that have a setting, each with its default."""
    found = {
        name: settings_of(function)[setting]
        for table in tables
        for name, function in table.items()
        if setting in settings_of(function)
    }
    return {name: list(default) if isinstance(default, tuple) else default for name, default in found.items()}


def _unused(setting: str, tables: tuple[Table[Any], ...]) -> str:
    takers = _takers(setting, tables)
    if takers:
        return f"changes nothing: none of the chosen entries takes it ({', '.join(takers)} would)."
    return "there is no such setting. `groupwise algorithms` lists what there is."
