"""Ratios by token and by completion, and what they are made of."""

import math

import pytest
import torch
from torch import tensor

from groupwise.maths.ratios import RATIOS
from groupwise.maths.sequences import cut_exp, likelihood, log_ratio, max_of_rollout, mean_of_rollout, sum_of_rollout
from groupwise.maths.surrogates import clipped_ratio
from groupwise.maths.tables import bind

ROLLOUT_T = tensor([5, 2, 5, 5, 2])


def values_and_jacobian(name, log_ratios):
    """The log ratios at that level, and the gradient of their sum weighted 1, 2, 3, ... by token."""
    log_ratio_T = tensor(log_ratios, dtype=torch.float64, requires_grad=True)
    given_T = bind(RATIOS, name, {})(log_ratio_T=log_ratio_T, rollout_T=ROLLOUT_T[: len(log_ratios)])
    (given_T * torch.arange(1, len(log_ratios) + 1)).sum().backward()
    return given_T.tolist(), log_ratio_T.grad.tolist()


@pytest.mark.parametrize(
    ("name", "values", "gradient"),
    [
        # rollout 5 has 0.1, 0.3, 0.8, rollout 2 has -0.2, 0.6; weights 1, 3, 4 and 2, 5
        ("token", [0.1, -0.2, 0.3, 0.8, 0.6], [1.0, 2.0, 3.0, 4.0, 5.0]),
        ("sequence", [0.4, 0.2, 0.4, 0.4, 0.2], [8 / 3, 7 / 2, 8 / 3, 8 / 3, 7 / 2]),
        ("sequence_token", [0.4, 0.2, 0.4, 0.4, 0.2], [1.0, 2.0, 3.0, 4.0, 5.0]),
        ("product", [1.2, 0.4, 1.2, 1.2, 0.4], [8.0, 7.0, 8.0, 8.0, 7.0]),
    ],
)
def test_by_hand(name, values, gradient):
    given = values_and_jacobian(name, [0.1, -0.2, 0.3, 0.8, 0.6])
    assert given[0] == pytest.approx(values)
    assert given[1] == pytest.approx(gradient)


@pytest.mark.parametrize("name", RATIOS)
def test_a_completion_of_one_token_is_its_token_and_none_is_none(name):
    assert values_and_jacobian(name, [0.3]) == ([0.3], [1.0])
    assert values_and_jacobian(name, []) == ([], [])


def test_with_one_advantage_for_the_completion_gspo_and_gspo_token_have_one_gradient():
    gradients = []
    for name in ("sequence", "sequence_token"):
        log_ratio_T = tensor([0.1, -0.2, 0.3, 0.1, -0.1], dtype=torch.float64, requires_grad=True)
        given_T = bind(RATIOS, name, {})(log_ratio_T=log_ratio_T, rollout_T=ROLLOUT_T)
        advantages_T = torch.where(ROLLOUT_T == 5, 1.0, -0.5).double()
        clipped_ratio(given_T, advantages_T, clip_low=0.2, clip_high=0.2).sum().backward()
        gradients.append(log_ratio_T.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", RATIOS)
def test_an_absurd_token_leaves_numbers(name):
    given, gradient = values_and_jacobian(name, [0.1, 1e5, -1e5, 0.0, 0.2])
    assert all(map(math.isfinite, [*given, *gradient]))


def test_sums_means_and_maxima_of_rollouts():
    values_T = tensor([1.0, 10.0, 2.0, 6.0, -20.0])
    assert sum_of_rollout(values_T, ROLLOUT_T).tolist() == [9, -10, 9, 9, -10]
    assert mean_of_rollout(values_T, ROLLOUT_T).tolist() == [3, -5, 3, 3, -5]
    assert max_of_rollout(values_T, ROLLOUT_T).tolist() == [6, 10, 6, 6, 10]


def test_log_ratios_are_always_numbers():
    inf = math.inf
    ratio_T = log_ratio(tensor([-1.0, -inf, -1.0, -inf]), tensor([-2.0, -2.0, -inf, -inf]))
    assert ratio_T.tolist() == [1.0, -1e5, 1e5, 0.0]
    assert cut_exp(tensor([25.0, -25.0, 1.0])).tolist() == pytest.approx([math.exp(20), math.exp(-20), math.e])
    assert likelihood(tensor([-inf, -1e4])).tolist() == [-1e5, -1e4]
