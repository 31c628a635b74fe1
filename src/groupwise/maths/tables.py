"""Tables of variants, and how a name in a recipe becomes a function.

A variant is one function and one table row. Its positional parameters are the data that every row of the table is
given; its keyword-only parameters are the settings that it needs. So a signature says everything:

    def clipped_ratio(logprobs_T, old_logprobs_T, advantages_T, rollout_T, *, clip_low, clip_high): ...
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Generic, TypeVar

from groupwise.errors import RecipeError

R = TypeVar("R")


class Table(Mapping[str, Callable[..., R]], Generic[R]):
    """Variants of one kind by name: a read-only mapping that knows what it lists.

    Example: `Table("advantage", {"group_centred": group_centred})["group_centred"]`
    """

    def __init__(self, kind: str, entries: Mapping[str, Callable[..., R]]) -> None:
        self.kind = kind
        """What an entry is called in a recipe and in messages: `advantage`, `surrogate`, `weights`, `divergence`."""
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Callable[..., R]:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def bind(table: Table[R], name: str, settings: Mapping[str, float | int]) -> Callable[..., R]:
    """The function of that name, with the settings that its signature asks for filled in.

    `settings` may hold more than this function wants: all variants draw from the same recipe. A setting with a default
    may be absent.

    Example: `bind(SURROGATES, "clipped_ratio", {"clip_low": 0.2, "clip_high": 0.28, "max_new_tokens": 512})` is
    `clipped_ratio` with both clips set.
    """
    if name not in table:
        raise RecipeError(_unknown(table.kind, name, list(table)))
    wanted = settings_of(table[name])
    missing = [setting for setting, required in wanted.items() if required and setting not in settings]
    if missing:
        raise RecipeError(
            f'{table.kind} = "{name}" needs {" and ".join(missing)}, which the recipe does not set: '
            f"set it, or choose another {table.kind} ({', '.join(sorted(table))})"
        )
    return partial(table[name], **{setting: settings[setting] for setting in wanted if setting in settings})


def settings_of(function: Callable[..., object]) -> dict[str, bool]:
    """The settings that a variant names, each with whether it must be given.

    Example: `settings_of(clipped_ratio)` is `{"clip_low": True, "clip_high": True}`.
    """
    parameters = inspect.signature(function).parameters.values()
    keyword_only = (parameter for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY)
    return {parameter.name: parameter.default is inspect.Parameter.empty for parameter in keyword_only}


def _unknown(kind: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f' Did you mean "{close[0]}"?' if close else ""
    return f'{kind} = "{name}": there is no such entry.{hint} There are: {", ".join(sorted(known))}'
