"""What a step may leave behind for the next, beside the policy and the learner, under one protocol.

A reward that is an object with `state()` and `restore(state)` (running statistics, a curriculum) is one of them: what
`state` returns may hold plain values, lists, dicts and tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from groupwise.rewards import RewardFunction


@runtime_checkable
class Stateful(Protocol):
    """Something that can be left and taken up again."""

    def state(self) -> Any:
        """All that `restore` needs."""
        ...

    def restore(self, state: Any) -> None:
        """Go on where `state` was taken."""
        ...


class RewardStates:
    """The rewards that have a state, together.

    Example: `RewardStates([RewardFunction("centred", Centred())]).state()` is `{"centred": {"mean": 0.4}}`.
    """

    def __init__(self, rewards: Sequence[RewardFunction]) -> None:
        self._with_state = {each.name: each.function for each in rewards if isinstance(each.function, Stateful)}

    def state(self) -> dict[str, Any]:
        """By name."""
        return {name: reward.state() for name, reward in self._with_state.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Those that are there again."""
        for name, reward in self._with_state.items():
            if name in state:
                reward.restore(state[name])
