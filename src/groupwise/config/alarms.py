"""The section of a recipe that says what training watches for, and what an alarm does."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from groupwise.config.section import Section


class AlarmsSection(Section):
    """Signs that training goes wrong, looked for after every step. All of them are told and written to alarms.jsonl."""

    action: Literal["tell", "stop"] = "tell"
    """What an alarm in `act_on` does beside being told. `stop` ends the run in good order: evaluated and saved."""
    act_on: list[str] = Field(default=["collapse", "kl", "repetition", "held_out"])
    """Names of the alarms that act."""
    off: list[str] = Field(default_factory=list[str])
    """Names of the alarms that are not looked for: no_signal, collapse, kl, clipping, length, repetition, truncation,
    outlier, held_out."""
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Limits by alarm, such as `{truncation = {share = 0.5}}`."""
    repeat_after: int = Field(default=25, ge=1)
    """The same alarm is told again after so many steps at the earliest."""
