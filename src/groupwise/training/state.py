"""How far a run is: what one step leaves to the next, beside the policy, the learner and the supply of problems."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class RunState:
    """How far a run is.

    Example: after step 3 of 8 problems each, `RunState(step=3, history=[row, row, row])`
    """

    step: int = 0
    """Steps done."""
    history: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    """The metrics of all steps, which reward functions may look at."""
    seconds: float = 0.0
    """What all attempts of the run took so far."""
    turned_back: int = 0
    """How often an alarm took it back to an earlier step."""
    tokens_taken_back: float = 0.0
    """Sampled in the steps that it was taken back from."""
    ended: bool = False
    """Whether the run has had enough before its last step: see `oversight.py`."""
    told: set[str] = field(default_factory=set[str])
    """What the user was told once and is not told again."""

    def state(self) -> dict[str, Any]:
        """What `restore` takes. The history is in metrics.jsonl."""
        told = sorted(self.told)
        facts = {"step": self.step, "seconds": self.seconds, "ended": self.ended, "told": told}
        return {**facts, "turned_back": self.turned_back, "tokens_taken_back": self.tokens_taken_back}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on there."""
        self.step, self.told = int(state["step"]), set(state["told"])
        self.seconds, self.ended = float(state["seconds"]), bool(state["ended"])
        self.turned_back = int(state.get("turned_back", 0))
        self.tokens_taken_back = float(state.get("tokens_taken_back", 0.0))


def history(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The rows of metrics.jsonl as they were before they were written: what was not finite is null there."""
    return [{name: math.nan if value is None else value for name, value in row.items()} for row in rows]
