"""The section of a recipe about completions that go round in circles."""

from __future__ import annotations

from pydantic import Field

from groupwise.config.section import Section


class LoopsSection(Section):
    """Completions that say the same over and over until the limit cuts them: the dearest ones, from which nothing is
    learnt. Cut early, they are marked (`finish_reason` is `loop`) and get a reward that is stated here."""

    tokens: int | None = Field(default=None, ge=8)
    """Cut a completion whose last so many tokens are one phrase at least four times over; looked at every 16 tokens of
    each completion. 128 is a good number. Unset: none is cut."""
    reward: float = Field(default=0.0, allow_inf_nan=False)
    """What such a completion gets, whatever the reward functions say of it."""
