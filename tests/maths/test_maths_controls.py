"""Coefficients that follow what they control, by hand."""

import pytest

from groupwise.errors import RecipeError
from groupwise.maths.controls import BETA_CONTROLS, ENTROPY_CONTROLS, fixed, proportional, stepped
from groupwise.maths.tables import bind


def test_a_fixed_coefficient_is_kept_and_applied():
    for table in (BETA_CONTROLS, ENTROPY_CONTROLS):
        control = bind(table, "fixed", {})
        assert control(coefficient=0.3, observed=9.0, rollouts=64) == (0.3, 0.3)
    assert fixed(0.0) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (None, 0.1),
        (0.1, 0.1),
        (0.11, 0.1 * (1 + 0.1 * 64 / 1000)),  # 10 % above its target
        (5.0, 0.1 * (1 + 0.2 * 64 / 1000)),  # cut at 20 %
        (0.0, 0.1 * (1 - 0.2 * 64 / 1000)),
        (0.09, 0.1 * (1 - 0.1 * 64 / 1000)),
    ],
)
def test_the_proportional_control_by_hand(observed, expected):
    kept, applied = proportional(0.1, observed, 64, kl_target=0.1, kl_horizon=1000.0)
    assert kept == applied == pytest.approx(expected)


def test_the_proportional_control_never_turns_around():
    assert proportional(0.1, 0.0, 10_000, kl_target=0.1, kl_horizon=1.0) == (0.0, 0.0)


def test_the_proportional_control_needs_a_target():
    with pytest.raises(RecipeError, match='beta_control = "proportional" needs kl_target'):
        bind(BETA_CONTROLS, "proportional", {})


@pytest.mark.parametrize(
    ("coefficient", "observed", "expected"),
    [
        (0.01, None, (0.01, 0.0)),  # nothing was seen yet
        (0.01, 0.15, (0.015, 0.015)),
        (0.01, 0.2, (0.015, 0.015)),
        (0.01, 0.3, (0.005, 0.0)),
        (0.998, 0.1, (1.0, 1.0)),
        (0.002, 0.3, (0.0, 0.0)),
    ],
)
def test_the_stepped_control_by_hand(coefficient, observed, expected):
    assert stepped(coefficient, observed) == pytest.approx(expected)


def test_the_stepped_control_has_settings():
    settings = {"entropy_target": 1.0, "entropy_step": 0.1, "entropy_min": 0.05, "entropy_max": 0.25}
    assert stepped(0.2, 1.0, **settings) == (0.25, 0.25)
    assert stepped(0.1, 1.1, **settings) == (0.05, 0.0)
