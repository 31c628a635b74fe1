"""The recipe's algorithm as five bound functions: what the step and the learner call by their names in the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from groupwise.config.sections import AlgorithmSection
from groupwise.maths.advantages import ADVANTAGES
from groupwise.maths.divergences import DIVERGENCES
from groupwise.maths.surrogates import SURROGATES
from groupwise.maths.tables import bind
from groupwise.maths.weights import WEIGHTS

Rewards = Sequence[Sequence[float | None]]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """`advantages(rewards_QG)`, `surrogate(new, old, A, rollout)`, `weights(lengths_R, group_R)`,
    `divergence(new, reference)` and the coefficient `beta` of the last.

    Example: `Algorithm.of(recipe.algorithm, max_new_tokens=512)`
    """

    advantages: Callable[[Rewards], list[list[float]]]
    surrogate: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    weights: Callable[[Tensor, Tensor], Tensor]
    divergence: Callable[[Tensor, Tensor], Tensor]
    beta: float
    clip_low: float
    clip_high: float

    @classmethod
    def of(cls, section: AlgorithmSection, max_new_tokens: int) -> Algorithm:
        """Look the names up and bind their settings; a name that no table has is a `RecipeError`, before any work."""
        settings = {**section.model_dump(), "max_new_tokens": max_new_tokens}
        return cls(
            advantages=bind(ADVANTAGES, section.advantage, settings),
            surrogate=bind(SURROGATES, section.surrogate, settings),
            weights=bind(WEIGHTS, section.weights, settings),
            divergence=bind(DIVERGENCES, section.divergence, settings),
            beta=section.beta,
            clip_low=section.clip_low,
            clip_high=section.clip_high,
        )
