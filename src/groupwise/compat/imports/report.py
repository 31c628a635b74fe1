"""What an import came to: settings of a recipe, and a line for each setting that was read.

optimizer.lr = 1e-06          actor_rollout_ref.actor.optim.lr = 1e-6
-                             trainer.n_gpus_per_node = 8: changes nothing here: ...
!                             critic.model.path = x: not taken over: ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from groupwise.config.toml_text import toml_value
from groupwise.errors import RecipeError

Fate = Literal["taken", "idle", "lost"]


@dataclass(frozen=True, slots=True)
class Line:
    """One setting that was read, and what became of it."""

    name: str
    value: Any
    fate: Fate
    words: str

    def __str__(self) -> str:
        sign = {"taken": "  ", "idle": "- ", "lost": "! "}[self.fate]
        return f"{sign}{self.name} = {self.value!r}: {self.words}"


@dataclass(slots=True)
class Imported:
    """Settings under dotted names, rewards, and the report."""

    source: str
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    rewards: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    lines: list[Line] = field(default_factory=list[Line])

    def take(self, name: str, value: Any, settings: Mapping[str, Any]) -> None:
        """It is these settings of ours."""
        self.settings |= settings
        words = ", ".join(f"{ours} = {_shown(value)}" for ours, value in settings.items()) or "as it is here anyway"
        self.lines.append(Line(name, value, "taken", words))

    def leave(self, name: str, value: Any, words: str) -> None:
        """It changes nothing here."""
        self.lines.append(Line(name, value, "idle", f"changes nothing here: {words}"))

    def lose(self, name: str, value: Any, words: str) -> None:
        """There is no such thing here."""
        self.lines.append(Line(name, value, "lost", f"not taken over: {words}"))

    def leave_idle_divergence(self) -> None:
        """An estimator of a KL that has no coefficient says nothing, and a recipe that names it is refused."""
        if self.settings.get("algorithm.beta") or self.settings.pop("algorithm.divergence", None) is None:
            return
        words = "changes nothing here: there is no KL to estimate"
        divergence = "algorithm.divergence = "
        self.lines = [
            replace(line, fate="idle", words=words) if line.words.startswith(divergence) else line
            for line in self.lines
        ]

    def to_toml(self) -> str:
        """The recipe, a table for each section."""
        lines = [f"# Made by `groupwise import` from {self.source}.", ""]
        tables: dict[str, list[str]] = {}
        for name, value in self.settings.items():
            section, dot, key = name.partition(".")
            if dot:
                tables.setdefault(section, []).append(f"{key} = {toml_value(value)}")
            else:
                lines.append(f"{name} = {toml_value(value)}")
        for section, entries in tables.items():
            lines += ["", f"[{section}]", *entries]
        for reward in self.rewards:
            lines += ["", "[[rewards]]", *(f"{key} = {toml_value(value)}" for key, value in reward.items())]
        return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    try:
        return toml_value(value)
    except (TypeError, RecipeError, AssertionError):
        return repr(value)


Taker = Callable[[Any], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Table:
    """What becomes of the settings of one trainer: those that are taken, those that change nothing, those that there
    are not. What is in none of them is not known."""

    taken: Mapping[str, Taker]
    idle: Mapping[str, str]
    lost: Mapping[str, str]

    def apply(self, given: Mapping[str, Any], imported: Imported) -> None:
        """Each setting in turn. An idle or lost name stands for all that begin with it and a dot."""
        for name, value in given.items():
            if name in self.taken:
                self._take(name, value, imported)
            elif (words := _found(name, self.lost)) is not None:
                imported.lose(name, value, words)
            elif (words := _found(name, self.idle)) is not None:
                imported.leave(name, value, words)
            else:
                imported.lose(name, value, "it is not known here what it means")

    def _take(self, name: str, value: Any, imported: Imported) -> None:
        try:
            imported.take(name, value, self.taken[name](value))
        except (KeyError, TypeError, ValueError) as error:
            imported.lose(name, value, f"there is nothing like this value here ({error})")


def _found(name: str, table: Mapping[str, str]) -> str | None:
    parts = name.split(".")
    starts = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((table[start] for start in starts if start in table), None)


def to(*names: str) -> Taker:
    """The value as it is, under these names."""
    return lambda value: dict.fromkeys(names, value)


def as_float(name: str) -> Taker:
    """The value as a number, whatever yaml made of `1e-6`, which it takes for a text."""
    return lambda value: {name: float(value)}


def chosen(name: str, values: Mapping[Any, Any]) -> Taker:
    """What the value stands for; one that is not there is not taken over."""
    return lambda value: {name: values[value]}


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        inner = value if isinstance(value, Mapping) else None
        flat |= {f"{prefix}{key}": value} if inner is None else flattened(inner, f"{prefix}{key}.")
    return flat
