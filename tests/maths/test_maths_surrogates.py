"""The clipped ratio, region by region, with the arithmetic in the comments."""

import math

import pytest
import torch
from torch import tensor

from groupwise.maths.surrogates import LARGEST_LOG_RATIO, SURROGATES, clipped_ratio
from groupwise.maths.tables import bind

CLIP = {"clip_low": 0.2, "clip_high": 0.28}


def loss_and_gradient(log_ratio, advantage, dtype=torch.float64, **clip):
    new = tensor([-2.0 + log_ratio], dtype=dtype, requires_grad=True)
    old = tensor([-2.0], dtype=dtype)
    loss = clipped_ratio(new, old, tensor([advantage], dtype=dtype), tensor([0]), **(clip or CLIP))
    loss.sum().backward()
    return loss.item(), new.grad.item()


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "gradient"),
    [
        # A > 0 wants the ratio up. -min(r A, clip(r, 0.8, 1.28) A); gradient -r A, 0 once it is above 1.28
        (2.0, 0.5, -1.0, -1.0),  # -min(1.0, 1.6)
        (2.0, 1.1, -2.2, -2.2),  # inside: both terms are 2.2
        (2.0, 1.5, -2.56, 0.0),  # -min(3.0, 2.56)
        # A < 0 wants the ratio down; gradient 0 once it is below 0.8
        (-2.0, 0.5, 1.6, 0.0),  # -min(-1.0, -1.6)
        (-2.0, 1.1, 2.2, 2.2),  # inside: both terms are -2.2
        (-2.0, 1.5, 3.0, 3.0),  # -min(-3.0, -2.56)
        # No advantage, no loss, wherever the ratio is.
        (0.0, 0.5, 0.0, 0.0),
        (0.0, 1.5, 0.0, 0.0),
    ],
)
def test_every_clip_region(advantage, ratio, loss, gradient):
    assert loss_and_gradient(math.log(ratio), advantage) == pytest.approx((loss, gradient), abs=1e-12)


def test_low_and_high_are_two_settings():
    # ratio 1.3, A 1: clipped at 1.2 gives -1.2 and no gradient; at 1.5 it is inside. And the same below.
    assert loss_and_gradient(math.log(1.3), 1.0, clip_low=0.5, clip_high=0.2) == pytest.approx((-1.2, 0.0))
    assert loss_and_gradient(math.log(1.3), 1.0, clip_low=0.2, clip_high=0.5) == pytest.approx((-1.3, -1.3))
    assert loss_and_gradient(math.log(0.7), -1.0, clip_low=0.2, clip_high=0.5) == pytest.approx((0.8, 0.0))
    assert loss_and_gradient(math.log(0.7), -1.0, clip_low=0.5, clip_high=0.2) == pytest.approx((0.7, 0.7))


def test_the_first_update_is_the_plain_policy_gradient():
    # old = new: the ratio is 1, the loss -A, its gradient -A, even if nothing may move (both clips 0)
    assert loss_and_gradient(0.0, 1.5) == (-1.5, -1.5)
    assert loss_and_gradient(0.0, -1.5, clip_low=0.0, clip_high=0.0) == (1.5, 1.5)


def test_a_step_down_the_loss_makes_good_tokens_likelier_and_bad_ones_rarer():
    logits = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    chosen = tensor([0, 2])
    old = logits.log_softmax(-1)[[0, 1], chosen].detach()
    new = logits.log_softmax(-1)[[0, 1], chosen]
    clipped_ratio(new, old, tensor([1.0, -1.0]), tensor([0, 1]), **CLIP).sum().backward()
    after = (logits - 0.1 * logits.grad).log_softmax(-1)[[0, 1], chosen]
    assert after[0] > old[0] and after[1] < old[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("log_ratio", "advantage", "loss"),
    [(1e4, 1.0, -1.28), (1e4, -1.0, math.exp(20)), (-1e4, 1.0, -math.exp(-20)), (-1e4, -1.0, 0.8)],
)
def test_an_absurd_ratio_has_a_finite_loss_and_no_gradient(log_ratio, advantage, loss, dtype):
    value, gradient = loss_and_gradient(log_ratio, advantage, dtype)
    assert value == pytest.approx(loss, rel=1e-5)
    assert gradient == 0.0


@pytest.mark.parametrize(("new", "old"), [(-math.inf, -2.0), (-2.0, -math.inf)])
def test_a_token_that_cannot_occur_on_one_side_is_an_absurd_ratio(new, old):
    new_T = tensor([new], requires_grad=True)
    loss_T = clipped_ratio(new_T, tensor([old]), tensor([-1.0]), tensor([0]), **CLIP)
    loss_T.sum().backward()
    assert loss_T.isfinite().all() and new_T.grad.item() == 0.0


def test_up_to_the_cut_nothing_changes():
    just_below = LARGEST_LOG_RATIO - 1e-6
    assert loss_and_gradient(just_below, -1.0) == pytest.approx((math.exp(just_below),) * 2)


def test_gradients_equal_finite_differences():
    generator = torch.Generator().manual_seed(0)
    log_ratio_T, advantages_T = torch.randn(2, 200, dtype=torch.float64, generator=generator)
    edges = tensor([math.log(0.8), math.log(1.28)])
    smooth = (log_ratio_T[:, None] - edges).abs().min(-1).values > 1e-3  # the kinks have no derivative
    new_T = log_ratio_T[smooth].requires_grad_()
    advantages_T = advantages_T[smooth]

    def loss(new):
        return clipped_ratio(new, torch.zeros_like(new), advantages_T, torch.zeros(len(new)).long(), **CLIP)

    assert len(new_T) > 150
    assert torch.autograd.gradcheck(loss, (new_T,))


def test_old_logprobs_and_advantages_get_no_gradient_of_their_own_accord():
    new, old, advantage = (tensor([-1.0]), tensor([-1.1]), tensor([0.5]))
    assert not clipped_ratio(new, old, advantage, tensor([0]), **CLIP).requires_grad


def test_no_tokens_are_no_loss():
    empty = torch.zeros(0, requires_grad=True)
    loss_T = bind(SURROGATES, "clipped_ratio", CLIP)(empty, empty.detach(), empty.detach(), torch.zeros(0).long())
    loss_T.sum().backward()
    assert loss_T.shape == (0,) and empty.grad.shape == (0,)
