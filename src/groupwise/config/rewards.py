"""The section `[[rewards]]`: which functions grade, and what happens when one fails."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from groupwise.config.section import Section


class RewardSection(Section):
    """One reward function. A list of them is summed by weight."""

    function: str = Field(min_length=1)
    """A built-in name, `file.py:name` (beside the recipe), or `package.module:name`."""
    weight: float = 1.0
    """Factor in the sum."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Keyword settings of a built-in, such as `{target = 50}`; handed on to your own function as keyword arguments."""
    on_error: Literal["unknown", "retry", "stop"] = "unknown"
    """When the function fails on a row. `unknown`: that rollout has no reward and teaches nothing; the run stops when
    more than a fifth is unknown. `retry`: two more attempts first, for functions that ask a service. `stop`: the run
    ends."""
    deadline: float = Field(default=60.0, gt=0)
    """Seconds that the function may spend on one completion; then it is killed (named by path) or left behind."""
    cache: bool = False
    """Grade the same text for the same problem once, until the function's file or settings change."""

    @property
    def handling(self) -> dict[str, Any]:
        """What is said about how to call the function, and not about what it does."""
        return {"on_error": self.on_error, "deadline": self.deadline, "cache": self.cache}
