"""A recipe on its way: the plain tree, where each value came from, and the mistakes found so far.

Draft("recipe.toml", tree={"train": {"steps": 5}}, given={("train",): Origin("recipe.toml", 1), ...})
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from groupwise.config.names import Name, dotted, holds
from groupwise.errors import RecipeError

COMMAND_LINE = "command line"
IN_CODE = "in code"
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: a file and its line, `command line`, `in code`, `preset dapo` or `default`."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing to mend: where it stands, which setting it is, and what is wrong with it and cures it."""

    origin: Origin
    name: Name
    text: str

    def __str__(self) -> str:
        return f"{self.origin}  {dotted(self.name)}: {self.text}" if self.name else f"{self.origin}  {self.text}"


@dataclass(slots=True)
class Draft:
    """What `load_recipe` works on, step by step, until it is a `Recipe`."""

    source: str
    tree: dict[str, Any]
    given: dict[Name, Origin]
    mistakes: list[Mistake] = field(default_factory=list[Mistake])

    def origin(self, name: Name) -> Origin:
        """Where the value stands, or the table around it, or at least the source of the whole."""
        for length in range(len(name), -1, -1):
            if name[:length] in self.given:
                return self.given[name[:length]]
        return Origin(self.source)

    def origins_of(self, names: Iterable[Name]) -> dict[str, str]:
        """The origin of each of these settings by dotted name, for the record."""
        return {dotted(name): str(self.origin(name)) if holds(self.tree, name) else DEFAULT for name in names}

    def note(self, name: Name, text: str) -> None:
        """Note a mistake in a setting."""
        self.mistakes.append(Mistake(self.origin(name), name, text))

    def raise_mistakes(self) -> None:
        """Raise all mistakes as one error, in the order of the file, the command line last."""
        if not self.mistakes:
            return
        ordered = sorted(self.mistakes, key=lambda it: (it.origin.source == COMMAND_LINE, it.origin.line or 0))
        raise RecipeError("\n".join(str(mistake) for mistake in ordered))
