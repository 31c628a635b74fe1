"""KL estimators: values and gradients by hand, and that they estimate what they say."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from groupwise.maths.divergences import DIVERGENCES, LARGEST_EXPONENT, k2, k3


def value_and_gradient(divergence, logprob, reference, dtype=torch.float64):
    logprobs_T = tensor([logprob], dtype=dtype, requires_grad=True)
    kl_T = divergence(logprobs_T, tensor([reference], dtype=dtype))
    kl_T.sum().backward()
    return kl_T.item(), logprobs_T.grad.item()


def test_k3_by_hand():
    # policy 0.5, reference 0.25: x = log 0.5; 0.5 + 0.6931472 - 1 = 0.1931472; gradient 1 - 0.5
    assert value_and_gradient(k3, math.log(0.5), math.log(0.25)) == pytest.approx((0.1931472, 0.5))
    # policy 0.25, reference 0.5: x = log 2; 2 - 0.6931472 - 1 = 0.3068528; gradient 1 - 2
    assert value_and_gradient(k3, math.log(0.25), math.log(0.5)) == pytest.approx((0.3068528, -1.0))


def test_k2_by_hand():
    # 0.6931472^2 / 2 = 0.2402265; gradient the log ratio
    assert value_and_gradient(k2, math.log(0.5), math.log(0.25)) == pytest.approx((0.2402265, 0.6931472))
    assert value_and_gradient(k2, math.log(0.25), math.log(0.5)) == pytest.approx((0.2402265, -0.6931472))


LOG_2 = math.log(2)


@pytest.mark.parametrize(
    ("name", "value", "gradient", "below_value", "below_gradient"),
    [
        # the policy at twice the reference's probability, and at half of it
        ("k1", LOG_2, 1.0, -LOG_2, 1.0),
        ("absolute", LOG_2, 1.0, LOG_2, -1.0),
        ("k2", LOG_2**2 / 2, LOG_2, LOG_2**2 / 2, -LOG_2),
        ("k3", 0.5 + LOG_2 - 1, 0.5, 2 - LOG_2 - 1, -1.0),
        # the value of the one, the gradient of k2
        ("k1_plus", LOG_2, LOG_2, -LOG_2, -LOG_2),
        ("absolute_plus", LOG_2, LOG_2, LOG_2, -LOG_2),
        ("k3_plus", 0.5 + LOG_2 - 1, LOG_2, 2 - LOG_2 - 1, -LOG_2),
    ],
)
def test_all_of_them_by_hand(name, value, gradient, below_value, below_gradient):
    above = value_and_gradient(DIVERGENCES[name], math.log(0.5), math.log(0.25))
    below = value_and_gradient(DIVERGENCES[name], math.log(0.25), math.log(0.5))
    assert above == pytest.approx((value, gradient))
    assert below == pytest.approx((below_value, below_gradient))


def test_no_divergence_is_left_out_above():
    assert set(DIVERGENCES) == {"k1", "absolute", "k2", "k3", "k1_plus", "absolute_plus", "k3_plus"}


@pytest.mark.parametrize("name", [name for name in DIVERGENCES if name not in ("k1", "absolute")])
def test_the_gradient_pulls_the_policy_back_to_the_reference(name):
    assert value_and_gradient(DIVERGENCES[name], -1.0, -3.0)[1] > 0  # too likely: go down
    assert value_and_gradient(DIVERGENCES[name], -3.0, -1.0)[1] < 0  # too rare: go up
    assert value_and_gradient(DIVERGENCES[name], -2.0, -2.0) == (0.0, 0.0)


def test_k3_averages_to_the_kl():
    p, q = tensor([0.5, 0.3, 0.2]).double(), tensor([0.2, 0.2, 0.6]).double()
    exact = (p * (p / q).log()).sum()  # 0.5 log 2.5 + 0.3 log 1.5 + 0.2 log 1/3 = 0.3600
    assert exact.item() == pytest.approx(0.3600, abs=1e-4)
    assert (p * k3(p.log(), q.log())).sum().item() == pytest.approx(exact.item(), abs=1e-7)


def test_the_gradient_of_k2_averages_to_the_gradient_of_the_kl():
    logits = tensor([0.5, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    reference = tensor([0.1, 0.4, -0.3], dtype=torch.float64).log_softmax(-1)
    policy = logits.log_softmax(-1)
    (exact,) = torch.autograd.grad((policy.exp() * (policy - reference)).sum(), logits, retain_graph=True)
    (estimate,) = torch.autograd.grad((policy.exp().detach() * k2(policy, reference)).sum(), logits)
    torch.testing.assert_close(estimate, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_times_the_ratio_the_gradient_averages_to_that_of_the_kl_even_off_policy(name):
    """`kl_ratio`: samples of an old policy, each weighed by policy / old policy with its gradient (DeepSeek-V3.2)."""
    logits = tensor([0.5, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    reference = tensor([0.1, 0.4, -0.3], dtype=torch.float64).log_softmax(-1)
    old = tensor([0.3, 0.3, 0.0], dtype=torch.float64).log_softmax(-1)
    policy = logits.log_softmax(-1)
    (exact,) = torch.autograd.grad((policy.exp() * (policy - reference)).sum(), logits, retain_graph=True)
    weighed = (policy - old).exp() * DIVERGENCES[name](policy, reference)
    (estimate,) = torch.autograd.grad((old.exp() * weighed).sum(), logits, retain_graph=True)
    torch.testing.assert_close(estimate, exact, rtol=0, atol=1e-12)
    # without the ratio that of k1 averages to nothing, even on policy
    (nothing,) = torch.autograd.grad((policy.exp().detach() * DIVERGENCES["k1"](policy, reference)).sum(), logits)
    assert nothing.abs().max() < 1e-15


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_token_that_cannot_occur_has_a_finite_divergence_without_gradient(name):
    for logprob, reference in ((-math.inf, -1.0), (-1.0, -math.inf), (-math.inf, -math.inf)):
        value, gradient = value_and_gradient(DIVERGENCES[name], logprob, reference)
        assert math.isfinite(value) and gradient == 0.0


@given(st.floats(-60, 0), st.floats(-60, 0))
def test_k3_is_never_negative_and_never_infinite(logprob, reference):
    value, gradient = value_and_gradient(k3, logprob, reference, torch.float32)
    assert 0 <= value < 5e8 and math.isfinite(gradient)


def test_k3_keeps_its_digits_where_the_policies_nearly_agree():
    # x = 1e-4 (in fp32 of -1 and -0.9999): x^2 / 2 + x^3 / 6 = 5.0002e-9; exp(x) - x - 1 in fp32 has errors of 6e-8
    logprob, reference = tensor([-1.0]), tensor([-0.9999])
    x = (reference - logprob).double().item()
    assert k3(logprob, reference).item() == pytest.approx(x**2 / 2 + x**3 / 6, rel=1e-2)


def test_beyond_the_cut_k3_stays_finite_without_gradient():
    # a policy that has all but lost a token of the reference: x = 1e4 counts as 20
    assert value_and_gradient(k3, -1e4, 0.0, torch.float32) == pytest.approx((math.exp(20) - 21, 0.0))
    just_below = LARGEST_EXPONENT - 1e-3
    assert value_and_gradient(k3, -just_below, 0.0)[1] == pytest.approx(1 - math.exp(just_below))


def test_on_the_other_side_k3_grows_linearly_and_keeps_its_gradient():
    # x = -1e4: exp(x) is 0, so 1e4 - 1, gradient 1
    assert value_and_gradient(k3, 0.0, -1e4) == pytest.approx((9999.0, 1.0))


@pytest.mark.parametrize("name", [name for name in DIVERGENCES if "plus" not in name])
def test_gradients_equal_finite_differences(name):
    generator = torch.Generator().manual_seed(1)
    logprobs_T, reference_T = -torch.rand(2, 50, dtype=torch.float64, generator=generator) * 5
    assert torch.autograd.gradcheck(DIVERGENCES[name], (logprobs_T.requires_grad_(), reference_T))
