"""How many grades are unknown: told above 2 %, the end of the run above 20 %, over the last 100 rollouts or more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from groupwise.errors import RewardError
from groupwise.types import Group

_ALARM, _STOP = 0.02, 0.20
_WINDOW = 100


class UnknownWatch:
    """Counts the rollouts whose grade is unknown, step by step.

    A short trouble costs nothing but its own rollouts. A lasting one would train on what happens to be graded.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._steps: deque[tuple[int, int]] = deque()
        self._alarmed = False

    def observe(self, when: str, groups: Sequence[Group]) -> None:
        """Tell, or raise a RewardError, if too many grades of the last steps are unknown."""
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        failed = [rollout for rollout in rollouts if rollout.outcome == "unknown"]
        self._steps.append((len(failed), len(rollouts)))
        while sum(count for _, count in self._steps) - self._steps[0][1] >= _WINDOW:
            self._steps.popleft()
        unknown, count = (sum(numbers) for numbers in zip(*self._steps, strict=True))
        share = unknown / max(count, 1)
        if share <= _ALARM:
            self._alarmed = False
            return
        words = f"{when}: {unknown:,} of the last {count:,} rollouts could not be graded ({share:.0%})"
        if share > _STOP and failed:
            raise RewardError(
                f"{words}, more than {_STOP:.0%}: what is left is no fair sample. The first failure was: "
                f"{failed[0].why}"
            )
        if not self._alarmed and failed:
            self._alarmed = True
            self._tell(f"{words}; nothing is learnt from them. {failed[0].why}")
