"""Controls: coefficients that follow what they control, `beta` of the KL term and `entropy` of the entropy bonus.

After each update an entry is given the coefficient, what was observed (`None` before the first update) and how many
rollouts that was, and returns the coefficient that is kept and the one that is applied. No torch.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from groupwise.maths.tables import Bounds, NotNegative, Positive, Table

Controlled: TypeAlias = tuple[float, float]


def fixed(coefficient: float) -> Controlled:
    """As it is in the recipe."""
    return coefficient, coefficient


def proportional(
    coefficient: float, observed: float | None, rollouts: int, *, kl_target: Positive, kl_horizon: Positive = 10_000.0
) -> Controlled:
    """beta grows while the KL is above its target and shrinks while it is below, by at most 0.2 * rollouts / horizon of
    itself in an update. `kl_target` is per token.

    Fine-Tuning Language Models from Human Preferences, arXiv 1909.08593, section 2.2.

    Example: beta 0.1, KL 0.15, target 0.1, 100 rollouts, horizon 10,000: the error 0.5 is cut to 0.2: 0.1002.
    """
    if observed is None:
        return coefficient, coefficient
    error = min(max(observed / kl_target - 1.0, -0.2), 0.2)
    coefficient *= max(1.0 + error * rollouts / kl_horizon, 0.0)
    return coefficient, coefficient


def stepped(
    coefficient: float,
    observed: float | None,
    *,
    entropy_target: NotNegative = 0.2,
    entropy_step: Positive = 0.005,
    entropy_min: NotNegative = 0.0,
    entropy_max: Annotated[float, Bounds(not_below="entropy_min")] = 1.0,
) -> Controlled:
    """The bonus takes a step up after an update with the entropy at its target or below, else a step down, and is
    applied only in the first case.

    Skywork-OR1, arXiv 2505.22312. TRL's `use_adaptive_entropy`.

    Example: coefficient 0.01, entropy 0.15, target 0.2: 0.015 from now on, and applied.
    """
    if observed is None:
        return coefficient, 0.0
    if observed > entropy_target:
        return max(coefficient - entropy_step, entropy_min), 0.0
    coefficient = min(coefficient + entropy_step, entropy_max)
    return coefficient, coefficient


BETA_CONTROLS: Table[Controlled] = Table(
    "beta_control", {"fixed": fixed, "proportional": proportional}, offers=("coefficient", "observed", "rollouts")
)
ENTROPY_CONTROLS: Table[Controlled] = Table(
    "entropy_control", {"fixed": fixed, "stepped": stepped}, offers=("coefficient", "observed", "rollouts")
)
