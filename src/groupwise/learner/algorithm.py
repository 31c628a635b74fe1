"""The recipe's algorithm as bound functions: what the step and the learner call by their names in the paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from groupwise.config.presets import PRESETS
from groupwise.config.sections import AlgorithmSection
from groupwise.errors import RecipeError
from groupwise.learner.own import load_own
from groupwise.learner.probe import check, is_silent
from groupwise.maths.advantages import ADVANTAGES
from groupwise.maths.controls import BETA_CONTROLS, ENTROPY_CONTROLS, Controlled
from groupwise.maths.corrections import CORRECTIONS
from groupwise.maths.divergences import DIVERGENCES
from groupwise.maths.filters import FILTERS
from groupwise.maths.length_penalties import LENGTH_PENALTIES
from groupwise.maths.ratios import RATIOS
from groupwise.maths.selections import SELECTIONS, Choice
from groupwise.maths.surrogates import SURROGATES
from groupwise.maths.tables import Bound, Table, bind, bind_function, settings_of
from groupwise.maths.weights import WEIGHTS
from groupwise.types import Group, Rollout

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
    def of(cls, section: AlgorithmSection, max_new_tokens: int, folder: Path = Path()) -> Algorithm:
        """Look the names up and bind their settings; what is wrong is a `RecipeError`, before any work. Functions of
        the user's own are looked for in `folder`."""
        own = {"clip_low": section.clip_low, "clip_high": section.clip_high, "max_new_tokens": max_new_tokens}
        if taken := sorted(own.keys() & section.settings.keys()):
            raise RecipeError(f"algorithm.settings.{taken[0]}: is a setting of its own, outside of algorithm.settings")
        settings = {**section.settings, **own}

        def entry(table: Table[R], name: str) -> Bound[R]:
            if ":" not in name:
                return bind(table, name, settings)
            bound = bind_function(table, name, load_own(table.kind, name, folder), settings)
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
        algorithm._check()
        return algorithm

    def advantages(
        self, groups: Sequence[Group], penalties_QG: Sequence[Sequence[float]] | None = None
    ) -> list[list[float]]:
        """One number for each rollout. `penalties_QG` are taken off the rewards before: the KL, where it stands there.
        So is what the length costs.

        Example: a group with the rewards 1 and 0 under `group_centred` has `[[0.5, -0.5]]`.
        """
        rewards_QG = [group.rewards_G for group in groups]
        lengths_QG = [[rollout.completion.drawn for rollout in group.rollouts] for group in groups]
        length_QG = self.length_penalty(rewards_QG=rewards_QG, lengths_QG=lengths_QG)
        for taken_QG in (length_QG, penalties_QG or []):
            if any(map(any, taken_QG)):
                rewards_QG = [_less(*group) for group in zip(rewards_QG, taken_QG, strict=True)]
        parts_QG = [[_parts(rollout) for rollout in group.rollouts] for group in groups]
        names = (name for parts_G in parts_QG for parts in parts_G for name in parts)
        return self.advantage(
            rewards_QG=rewards_QG,
            lengths_QG=lengths_QG,
            parts_QG=parts_QG,
            reward_weights=self.reward_weights or dict.fromkeys(names, 1.0),
        )

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
        found = {name: value for bound in self._entries() for name, value in bound.settings.items()}
        lists = {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
        return {name: value for name, value in lists.items() if name not in fields}

    @property
    def _adapts_entropy(self) -> bool:
        return self.section.entropy_control != "fixed"

    def _entries(self) -> Iterator[Bound[Any]]:
        yield from (self.advantage, self.ratio, self.surrogate, self.weights, self.divergence)
        yield from (self.correction,) if self.correction is not None else ()
        yield from (*self.filters, self.beta_control, self.entropy_control, self.selection, self.length_penalty)

    def _check(self) -> None:
        """Entries that do not go together, and settings that nothing takes."""
        correction = self.correction
        if correction is not None and correction.takes("rollout_T") and self.surrogate.takes("correction_T"):
            raise RecipeError(
                f'algorithm.correction = "{correction.name}" weighs whole completions, and surrogate = '
                f'"{self.surrogate.name}" takes the corrections of single tokens into a ratio of its own. Choose one '
                'by token, such as "token_truncate"'
            )
        if self.advantage.takes("parts_QG"):
            one_by_one = f'advantage = "{self.advantage.name}" looks at the reward functions one by one, and'
            if self.kl_in_reward:
                raise RecipeError(
                    f'algorithm.kl_in = "reward": {one_by_one} the KL is none of them. Set kl_in = "loss"'
                )
            if self.length_penalty.name != "none":
                raise RecipeError(
                    f'algorithm.length_penalty = "{self.length_penalty.name}": {one_by_one} the penalty is none of '
                    'them. Set length_penalty = "none" and penalise the length with a reward function'
                )
        used = {setting for bound in self._entries() for setting in bound.settings}
        preset = PRESETS[self.section.preset]
        for name in ("clip_low", "clip_high"):
            if name not in used and self.section.model_dump()[name] != preset[name]:
                raise RecipeError(f"algorithm.{name}: {_unused(name)} Drop it")
        for name, value in self.section.settings.items():
            if name not in used and value not in (default for default, _ in _defaults(name)):
                raise RecipeError(f"algorithm.settings.{name}: {_unused(name)} Drop it")


def _less(rewards_G: Sequence[float | None], taken_G: Sequence[float]) -> list[float | None]:
    return [None if reward is None else reward - taken for reward, taken in zip(rewards_G, taken_G, strict=True)]


def _parts(rollout: Rollout) -> Mapping[str, float | None]:
    """Without the parts of a rollout whose grade is unknown: what one function says must not move the others' mean."""
    known = rollout.reward is not None
    return {name: part if known else None for name, part in rollout.reward_parts.items()}


def _defaults(setting: str) -> list[tuple[Any, str]]:
    """What a setting is by default in the entries that have it, and their names."""
    return [
        (list(default) if isinstance(default, tuple) else default, name)
        for table in TABLES
        for name, function in table.items()
        for key, default in settings_of(function).items()
        if key == setting
    ]


def _unused(setting: str) -> str:
    takers = [name for _, name in _defaults(setting)]
    if takers:
        return f"changes nothing: none of the chosen entries takes it ({', '.join(takers)} would)."
    return "there is no such setting. `groupwise algorithms` lists what there is."
