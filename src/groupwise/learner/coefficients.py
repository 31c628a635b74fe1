"""The coefficients of the KL term and of the entropy bonus, and what becomes of them from update to update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groupwise.learner.algorithm import Algorithm


class Coefficients:
    """`beta` and `entropy` as they are applied now.

    Example: `coefficients.follow_entropy(1.3, rollouts=64)` after an update; a fixed one stays what it is.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm
        self._kept = {"beta": algorithm.section.beta, "entropy": algorithm.section.entropy}
        self.beta = self._next("beta", None, 0)
        self.entropy = self._next("entropy", None, 0)

    def follow_kl(self, observed: float, rollouts: int) -> None:
        """After an update, or where the KL stands in the reward, after a batch: the mean KL by token."""
        self.beta = self._next("beta", observed, rollouts)

    def follow_entropy(self, observed: float, rollouts: int) -> None:
        """After an update: the mean entropy by token."""
        self.entropy = self._next("entropy", observed, rollouts)

    def moving(self) -> dict[str, float]:
        """Those that are not fixed, by the names of their metrics."""
        section = self._algorithm.section
        moving = {"beta": self.beta} if section.beta_control != "fixed" else {}
        return moving | ({"entropy_coefficient": self.entropy} if section.entropy_control != "fixed" else {})

    def state(self) -> dict[str, Any]:
        """What `restore` takes."""
        return {"kept": dict(self._kept), "beta": self.beta, "entropy": self.entropy}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another left off. A coefficient that is fixed is the recipe's."""
        section = self._algorithm.section
        for name, control in (("beta", section.beta_control), ("entropy", section.entropy_control)):
            if control != "fixed":
                self._kept[name] = float(state["kept"][name])
        if section.beta_control != "fixed":
            self.beta = float(state["beta"])
        if section.entropy_control != "fixed":
            self.entropy = float(state["entropy"])

    def _next(self, name: str, observed: float | None, rollouts: int) -> float:
        control = self._algorithm.beta_control if name == "beta" else self._algorithm.entropy_control
        self._kept[name], applied = control(coefficient=self._kept[name], observed=observed, rollouts=rollouts)
        return applied
