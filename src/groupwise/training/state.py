"""What one step leaves to the next, beside the weights and what the learner keeps about them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class RunState:
    """How far a run is.

    Example: after step 3 of 8 problems each, `RunState(step=3, drawn=24, history=[row, row, row])`
    """

    step: int = 0
    """Steps done."""
    drawn: int = 0
    """Problems drawn so far: the place in the endless sequence of epochs."""
    history: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    """The metrics of all steps, which reward functions may look at."""
    told: set[str] = field(default_factory=set[str])
    """What the user was told once and is not told again."""
