"""The recipe's algorithm as bound functions: what the step and the learner call by their names in the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from groupwise.config.sections import AlgorithmSection
from groupwise.errors import RecipeError
from groupwise.learner.agreement import check_agreement
from groupwise.learner.graded import Graded
from groupwise.learner.own import load_own
from groupwise.learner.probe import check, is_silent
from groupwise.learner.world import ALONE, World
from groupwise.maths.advantages import ADVANTAGES
from groupwise.maths.controls import BETA_CONTROLS, ENTROPY_CONTROLS, Controlled
from groupwise.maths.corrections import CORRECTIONS
from groupwise.maths.divergences import DIVERGENCES
from groupwise.maths.filters import FILTERS
from groupwise.maths.length_penalties import LENGTH_PENALTIES
from groupwise.maths.ratios import RATIOS
from groupwise.maths.selections import SELECTIONS, Choice
from groupwise.maths.surrogates import SURROGATES
from groupwise.maths.tables import Bound, Table, bind, bind_function
from groupwise.maths.weights import WEIGHTS
from groupwise.types import Group

R = TypeVar("R")

TABLES: tuple[Table[Any], ...] = (
    ADVANTAGES,
    RATIOS,
    SURROGATES,
    WEIGHTS,
    DIVERGENCES,
    CORRECTIONS,
    FILTERS,
    BETA_CONTROLS,
    ENTROPY_CONTROLS,
    SELECTIONS,
    LENGTH_PENALTIES,
)
"""All there is to choose from."""


@dataclass(frozen=True)
class Algorithm:
    """One bound entry for each part of the objective, and the coefficients.

    Example: `Algorithm.of(recipe.algorithm, max_new_tokens=512)`
    """

    section: AlgorithmSection
    advantage: Bound[list[list[float]]]
    ratio: Bound[Tensor]
    surrogate: Bound[Tensor]
    weights: Bound[Tensor]
    divergence: Bound[Tensor]
    correction: Bound[Tensor] | None
    filters: tuple[Bound[Tensor], ...]
    beta_control: Bound[Controlled]
    entropy_control: Bound[Controlled]
    selection: Bound[Choice]
    length_penalty: Bound[list[list[float]]]
    reward_weights: Mapping[str, float] = field(default_factory=dict[str, float])
    """Of the reward functions by name; empty: 1 for each."""

    @classmethod
    def of(
        cls, section: AlgorithmSection, max_new_tokens: int, folder: Path = Path(), *, group_size: int | None = None
    ) -> Algorithm:
        """Look the names up and bind their settings; what is wrong is a `RecipeError`, before any work. Functions of
        the user's own are looked for in `folder`."""
        own = {"clip_low": section.clip_low, "clip_high": section.clip_high, "max_new_tokens": max_new_tokens}
        if taken := sorted({*own, "group_size"} & section.settings.keys()):
            raise RecipeError(f"algorithm.settings.{taken[0]}: is a setting of its own, outside of algorithm.settings")
        settings = {**section.settings, **own, **({} if group_size is None else {"group_size": group_size})}

        def entry(table: Table[R], name: str) -> Bound[R]:
            if ":" in name:
                bound = bind_function(table, name, load_own(table.kind, name, folder), settings)
            else:
                bound = bind(table, name, settings)
            check(bound)
            return bound

        algorithm = cls(
            section=section,
            advantage=entry(ADVANTAGES, section.advantage),
            ratio=entry(RATIOS, section.ratio),
            surrogate=entry(SURROGATES, section.surrogate),
            weights=entry(WEIGHTS, section.weights),
            divergence=entry(DIVERGENCES, section.divergence),
            correction=None if section.correction is None else entry(CORRECTIONS, section.correction),
            filters=tuple(entry(FILTERS, name) for name in section.filters),
            beta_control=entry(BETA_CONTROLS, section.beta_control),
            entropy_control=entry(ENTROPY_CONTROLS, section.entropy_control),
            selection=entry(SELECTIONS, section.selection),
            length_penalty=entry(LENGTH_PENALTIES, section.length_penalty),
        )
        check_agreement(section, algorithm._by_kind(), TABLES)
        return algorithm

    def advantages(
        self, groups: Sequence[Group], penalties_QG: Sequence[Sequence[float]] | None = None, world: World = ALONE
    ) -> list[list[float]]:
        """One number for each rollout. `penalties_QG` are taken off the rewards before: the KL, where it stands there.
        So is what the length costs. What looks at the whole step looks at the groups of all ranks of `world`.

        Example: a group with the rewards 1 and 0 under `group_centred` has `[[0.5, -0.5]]`.
        """
        graded = Graded.of(groups, self.reward_weights)
        rewards_QG = graded.rewards_QG
        length_QG = self.length_penalty(**graded.data())
        for taken_QG in (length_QG, penalties_QG or []):
            if any(map(any, taken_QG)):
                rewards_QG = [_less(*group) for group in zip(rewards_QG, taken_QG, strict=True)]
        everyone, own = replace(graded, rewards_QG=rewards_QG).of_all(world)
        return self.advantage(**everyone.data())[own] if groups else []

    @cached_property
    def needs_silent(self) -> bool:
        """Whether rollouts of advantage 0 have to be computed for the policy term or the bonus: something looks at all
        tokens of the update, or gives them a loss."""
        return self.section.entropy > 0 or self.looks_ahead or not is_silent(self.surrogate) or self._adapts_entropy

    @property
    def looks_ahead(self) -> bool:
        """Whether something looks at all tokens of an update before it begins."""
        return any(bound.takes("update") for bound in (self.surrogate, *self.filters))

    @property
    def has_bonus(self) -> bool:
        """Whether there is, or may come to be, an entropy bonus."""
        return self.section.entropy > 0 or self._adapts_entropy

    @property
    def kl_in_loss(self) -> bool:
        """Whether the loss has a KL term."""
        return self.section.beta > 0 and self.section.kl_in == "loss"

    @property
    def kl_in_reward(self) -> bool:
        """Whether the KL is taken off the rewards."""
        return self.section.beta > 0 and self.section.kl_in == "reward"

    @property
    def settings(self) -> dict[str, Any]:
        """What `algorithm.settings` comes to: every setting of the chosen entries, defaults included."""
        fields = {*AlgorithmSection.model_fields, "max_new_tokens"}
        found = {name: value for bound in self._by_kind().values() for name, value in bound.settings.items()}
        lists = {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
        return {name: value for name, value in lists.items() if name not in fields}

    @property
    def _adapts_entropy(self) -> bool:
        return self.section.entropy_control != "fixed"

    def _by_kind(self) -> dict[str, Bound[Any]]:
        """All chosen entries."""
        chosen = (self.advantage, self.ratio, self.surrogate, self.weights, self.divergence, self.correction)
        others = (self.beta_control, self.entropy_control, self.selection, self.length_penalty)
        named = {bound.kind: bound for bound in (*chosen, *others) if bound is not None}
        return named | {f"filter {place}": bound for place, bound in enumerate(self.filters)}


def _less(rewards_G: Sequence[float | None], taken_G: Sequence[float]) -> list[float | None]:
    return [None if reward is None else reward - taken for reward, taken in zip(rewards_G, taken_G, strict=True)]
