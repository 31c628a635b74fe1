"""The section of a recipe that says what training watches for, and what an alarm does."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from groupwise.config.section import Section


class AlarmsSection(Section):
    """Signs that training goes wrong, looked for after every step. All of them are told and written to alarms.jsonl."""

    action: Literal["tell", "pause", "stop", "roll_back"] = "tell"
    """What an alarm in `act_on` does beside being told. `pause` saves the step and leaves with exit code 1, so that
    somebody looks before the same command goes on. `stop` ends the run in good order: evaluated, saved, finished.
    `roll_back` goes back to the last good checkpoint with a lower learning rate, and pauses where it cannot."""
    act_on: list[str] = Field(default=["collapse", "kl", "repetition", "held_out"])
    """Names of the alarms that act."""
    roll_back_steps: int = Field(default=10, ge=1)
    """What an alarm sees began some steps before it: a checkpoint is good if it is so many steps older."""
    roll_back_lr: float = Field(default=0.5, gt=0, le=1)
    """Each time it is rolled back, the learning rate is multiplied by this for the rest of the run."""
    roll_backs: int = Field(default=3, ge=1)
    """How often at most. The next time the run pauses."""
    off: list[str] = Field(default_factory=list[str])
    """Names of the alarms that are not looked for: no_signal, collapse, kl, clipping, length, repetition, truncation,
    outlier, held_out."""
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Limits by alarm, such as `{truncation = {share = 0.5}}`."""
    repeat_after: int = Field(default=25, ge=1)
    """The same alarm is told again after so many steps at the earliest."""
