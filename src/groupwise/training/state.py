"""What one step leaves to the next, beside the weights and what the learner keeps about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class RunState:
    """How far a run is.

    Example: after step 3 of 8 problems each, `RunState(step=3, supply={"place": 24}, history=[row, row, row])`
    """

    step: int = 0
    """Steps done."""
    supply: dict[str, Any] = field(default_factory=dict[str, Any])
    """Which problems come next: what the supply's `restore` takes, plain JSON values."""
    history: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    """The metrics of all steps, which reward functions may look at."""
    told: set[str] = field(default_factory=set[str])
    """What the user was told once and is not told again."""
