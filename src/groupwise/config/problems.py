"""The section of a recipe that says which problems a step draws."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from groupwise.config.section import Section


class ProblemsSection(Section):
    """Which problems a step draws."""

    order: Literal["epochs", "data", "difficulty"] = "epochs"
    """`epochs`: every problem once, then all again in another order. `data`: in the order of the data. `difficulty`: of
    the next few of an epoch those that the policy is expected to solve about as often as `target`, by the pass rates
    that this run has seen."""
    candidates: float = Field(default=2.0, ge=1)
    """With `difficulty`: so many problems are looked at for each one that is drawn."""
    target: float = Field(default=0.5, ge=0, le=1)
    """With `difficulty`: the pass rate that teaches most."""
    memory: float = Field(default=0.8, ge=0, le=1)
    """With `difficulty`: how much of what was seen of a problem before still counts when it is seen again."""
    passing: float | None = None
    """With `difficulty`: the reward from which on a completion has passed. Unset: a reward counts by where it lies
    between the lowest and the highest that the run has seen."""
