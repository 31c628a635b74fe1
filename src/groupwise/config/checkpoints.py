"""The section about checkpoints."""

from __future__ import annotations

from pydantic import Field

from groupwise.config.section import Section


class CheckpointSection(Section):
    """What is kept so that a run can go on after whatever ended it. The last step is always saved, and the step at hand
    when a run is asked to stop."""

    every: int = Field(default=25, ge=0)
    """Save every so many steps; 0: only at the end and when the run is stopped."""
    keep: int = Field(default=2, ge=1)
    """How many whole ones to keep, beside the best."""
    best: bool = True
    """Also save, and keep, the step whose evaluation is the best so far (greedy accuracy, or the reward where there are
    no answers to compare with)."""
    background: bool = True
    """Write while training goes on, from a copy in the memory of the host. Off: training waits, and no copy is made of
    what is there already."""
