"""The section of a recipe that says when enough is enough."""

from __future__ import annotations

from pydantic import Field

from groupwise.config.section import Section


class BudgetsSection(Section):
    """Ends before `train.steps`. Whichever is met first ends the run in good order: evaluated, saved, finished."""

    hours: float | None = Field(default=None, gt=0)
    """Wall-clock time of the run, earlier attempts of the same run included, also the steps that a kill lost. Setting
    the clock of the machine changes nothing."""
    sampled_tokens: int | None = Field(default=None, ge=1)
    """Tokens sampled for training, those of steps that an alarm took back included. Steps that are done again after a
    kill count once: the run ends where it would have ended without."""
    accuracy: float | None = Field(default=None, gt=0, le=1)
    """Greedy accuracy on the held-out problems that is good enough. Needs evaluation.every."""
    patience: int | None = Field(default=None, ge=1)
    """So many evaluations in a row without a better accuracy end the run, over all attempts. Needs
    evaluation.every."""
