"""Every surrogate by hand: value and gradient, region by region, with the arithmetic in the comments."""

import math

import pytest
import torch
from torch import tensor

from groupwise.maths.sequences import LARGEST_LOG_RATIO, log_ratio
from groupwise.maths.surrogates import SURROGATES, clipped_ratio
from groupwise.maths.tables import bind
from groupwise.maths.whole import Whole

CLIP = {"clip_low": 0.2, "clip_high": 0.28}


def loss_and_gradient(log_ratio, advantage, dtype=torch.float64, **clip):
    log_ratio_T = tensor([log_ratio], dtype=dtype, requires_grad=True)
    loss = clipped_ratio(log_ratio_T, tensor([advantage], dtype=dtype), **(clip or CLIP))
    loss.sum().backward()
    return loss.item(), log_ratio_T.grad.item()


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
    clipped_ratio(new - old, tensor([1.0, -1.0]), **CLIP).sum().backward()
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
    loss_T = clipped_ratio(log_ratio(new_T, tensor([old])), tensor([-1.0]), **CLIP)
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
        return clipped_ratio(new, advantages_T, **CLIP)

    assert len(new_T) > 150
    assert torch.autograd.gradcheck(loss, (new_T,))


# --- the others ------------------------------------------------------------------------------------------------------


def of_rollout(name, logprobs, old, advantages, rollout=None, **given):
    """Loss [T] and gradient by logprob [T] of a surrogate; the ratio is by token."""
    settings = {"clip_low": 0.2, "clip_high": 0.28, **given.pop("settings", {})}
    logprobs_T = tensor(logprobs, dtype=torch.float64, requires_grad=True)
    old_T, advantages_T = tensor(old, dtype=torch.float64), tensor(advantages, dtype=torch.float64)
    data = {
        "logprobs_T": logprobs_T,
        "old_logprobs_T": old_T,
        "log_ratio_T": log_ratio(logprobs_T, old_T),
        "advantages_T": advantages_T,
        "correction_T": torch.ones_like(old_T),
        "rollout_T": tensor(rollout or [0] * len(logprobs), dtype=torch.long),
        "update": Whole(logprobs_T.detach(), old_T, advantages_T, old_T, old_T, torch.arange(len(old))),
        **given,
    }
    loss_T = bind(SURROGATES, name, settings)(**data)
    loss_T.sum().backward()
    return loss_T.tolist(), logprobs_T.grad.tolist()


def one(name, ratio, advantage, old=0.1, **settings):
    """Loss and gradient of a single token."""
    (loss,), (gradient,) = of_rollout(name, [math.log(ratio * old)], [math.log(old)], [advantage], settings=settings)
    return round(loss, 12), round(gradient, 12)


LOG_01 = math.log(0.1)


@pytest.mark.parametrize(
    ("name", "ratio", "advantage", "loss", "gradient"),
    [
        # delta 4: beyond it a bad token has a loss of 4 and no gradient; a good one is clipped at 1.28 as ever
        ("two_sided", 6.0, -1.0, 4.0, 0.0),
        ("two_sided", 3.0, -1.0, 3.0, 3.0),
        ("two_sided", 6.0, 1.0, -1.28, 0.0),
        ("two_sided", 0.5, -1.0, 0.8, 0.0),
        # dual 3: min(max(6, 1.28), 3)
        ("dual_clip", 6.0, -1.0, 3.0, 0.0),
        ("dual_clip", 2.0, -1.0, 2.0, 2.0),
        ("dual_clip", 6.0, 1.0, -1.28, 0.0),
        ("dual_clip", 0.5, -1.0, 0.8, 0.0),
        # on policy: -4/tau * 1/2 * A, gradient -4/tau * tau * 1/4 * A = -A
        ("sapo", 1.0, 1.0, -2.0, -1.0),
        ("sapo", 1.0, -1.0, 2.0 / 1.05, 1.0),
        # ratio 2, tau 1: sigmoid(1) = 0.7310586, -4 * that; gradient -4 * 0.7310586 * 0.2689414 * 2
        ("sapo", 2.0, 1.0, -2.9242343, -1.5728955),
        # a weight times the logprob, here log 0.1 + log ratio
        ("reinforce", 1.0, 2.0, -2 * LOG_01, -2.0),
        ("cispo_cap", 8.0, 1.0, -5 * (LOG_01 + math.log(8)), -5.0),
        ("cispo_cap", 0.1, 1.0, -0.1 * (2 * LOG_01), -0.1),
        ("cispo_clip", 8.0, 1.0, -1.28 * (LOG_01 + math.log(8)), -1.28),
        ("cispo_clip", 0.1, -1.0, 0.8 * (2 * LOG_01), 0.8),
        # phi = 2^2 e^(3 (1 - 2)) = 4 e^-3 = 0.1991483 for A 1; 2^3 e^(2 (1 - 2)) = 8 e^-2 = 1.0826823 for A -1
        ("vespo", 2.0, 1.0, -0.1991483 * math.log(0.2), -0.1991483),
        ("vespo", 2.0, -1.0, 1.0826823 * math.log(0.2), 1.0826823),
        ("vespo", 1.0, 1.0, -LOG_01, -1.0),
        ("topr", 0.5, -1.0, 0.5 * math.log(0.05), 0.5),
        ("topr", 2.0, -1.0, math.log(0.2), 1.0),
        ("topr", 8.0, 1.0, -math.log(0.8), -1.0),
        # probabilities 0.1 -> 0.25 moved by 0.15, -> 0.35 by 0.25, which is more than 0.2
        ("dppo_tv", 2.5, 1.0, -2.5 * math.log(0.25), -2.5),
        ("dppo_tv", 3.5, 1.0, 0.0, 0.0),
        ("dppo_tv", 3.5, -1.0, 3.5 * math.log(0.35), 3.5),
        # 0.1 log(0.1/0.2) + 0.9 log(0.9/0.8) = -0.0693147 + 0.1060047 = 0.0366900, within 0.05; to 0.25: 0.0724572
        ("dppo_kl", 2.0, 1.0, -2.0 * math.log(0.2), -2.0),
        ("dppo_kl", 2.5, 1.0, 0.0, 0.0),
        ("dppo_kl", 2.5, -1.0, 2.5 * math.log(0.25), 2.5),
        # -A logprob + 0.05 d^2, gradient -A + 0.1 d, d = log 2 = 0.6931472
        ("dro", 2.0, 1.0, -math.log(0.2) + 0.0240227, -0.9306853),
        ("dro", 2.0, 0.0, 0.0240227, 0.0693147),
    ],
)
def test_one_token_by_hand(name, ratio, advantage, loss, gradient):
    assert one(name, ratio, advantage) == pytest.approx((loss, gradient), abs=2e-7)


def test_dppo_looks_at_probabilities_where_the_clip_looks_at_ratios():
    # 0.9 -> 0.99: the ratio is 1.1, inside of the clip; the KL of "this or any other" is 0.9 log(0.9/0.99) +
    # 0.1 log(0.1/0.01) = -0.0857792 + 0.2302585 = 0.1444793, and it is out. 0.001 -> 0.002: just the other way round.
    assert one("dppo_kl", 1.1, 1.0, old=0.9) == (0.0, 0.0)
    assert one("clipped_ratio", 1.1, 1.0, old=0.9) == (-1.1, -1.1)
    assert one("dppo_kl", 2.0, 1.0, old=0.001) == pytest.approx((-2 * math.log(0.002), -2.0))
    assert one("clipped_ratio", 2.0, 1.0, old=0.001) == (-1.28, 0.0)


def test_settings_are_what_they_say():
    assert one("two_sided", 6.0, -1.0, delta=5.0) == (5.0, 0.0)
    assert one("dual_clip", 6.0, -1.0, dual=5.0) == (5.0, 0.0)
    assert one("cispo_cap", 8.0, 1.0, cap=2.0) == pytest.approx((-2 * math.log(0.8), -2.0))
    assert one("dppo_tv", 3.5, 1.0, mask_high=0.3, cap=2.0) == pytest.approx((-2 * math.log(0.35), -2.0))
    assert one("dppo_tv", 0.1, -1.0, mask_low=0.05) == (0.0, 0.0)
    assert one("dro", 2.0, 0.0, pull=1.0) == pytest.approx((0.5 * math.log(2) ** 2, math.log(2)))
    # k 1 and lambda 1: 2 e^-1
    assert one("vespo", 2.0, 1.0, k_lambda_pos=[1.0, 1.0])[1] == pytest.approx(-2 / math.e)
    # tau 2: -(4/2) sigmoid(2 (2 - 1)) = -2 * 0.8807971
    assert one("sapo", 2.0, 1.0, tau_pos=2.0)[0] == pytest.approx(-1.7615942, abs=1e-7)


@pytest.mark.parametrize("ratio", [0.3, 0.9, 1.2, 2.0, 3.5, 7.0])
@pytest.mark.parametrize("advantage", [1.5, 0.0, -1.5])
def test_two_sided_and_dual_clip_are_one_function(ratio, advantage):
    assert one("dual_clip", ratio, advantage, dual=3.0) == one("two_sided", ratio, advantage, delta=3.0)


def test_gmpo_by_hand():
    # Log ratios 0.1 and 0.9, the second cut at 0.4: mean 0.25, e^0.25 = 1.2840254. The first token's share is half of
    # the sum of both losses, -1.284; the second has none, as it is beyond its bound.
    wide = {"clip_low": 0.4, "clip_high": 0.4}
    loss, gradient = of_rollout("gmpo", [-1.0, -1.0], [-1.1, -1.9], [1.0, 1.0], settings=wide)
    assert loss == pytest.approx([-1.2840254] * 2)
    assert gradient == pytest.approx([-1.2840254, 0.0])
    # For a bad completion what is too likely counts in full: mean 0.5, e^0.5 = 1.6487213; what is too rare is cut.
    loss, gradient = of_rollout("gmpo", [-1.0, -1.0], [-1.1, -1.9], [-1.0, -1.0], settings=wide)
    assert loss == pytest.approx([1.6487213] * 2)
    assert gradient == pytest.approx([1.6487213] * 2)
    loss, gradient = of_rollout("gmpo", [-1.9], [-1.0], [-1.0], settings=wide)
    assert (loss, gradient) == (pytest.approx([math.exp(-0.4)]), [0.0])


def test_vespo_weighs_whole_completions_and_takes_the_correction_in():
    # log w = 0.2 + 0.3 + log 1.5 + log 0.5 = 0.2123179, w = 1.2365410; phi = w^2 e^(3 (1 - w)) = 0.7520240
    correction_T = tensor([1.5, 0.5], dtype=torch.float64)
    loss, gradient = of_rollout("vespo", [-1.0, -2.0], [-1.2, -2.3], [1.0, 1.0], correction_T=correction_T)
    w = math.exp(0.5) * 0.75
    assert w == pytest.approx(1.2365410, abs=1e-7)
    assert gradient == pytest.approx([-0.7520240] * 2, abs=1e-7)
    assert loss == pytest.approx([0.7520240, 2 * 0.7520240], abs=1e-7)
    # A completion of its own has a weight of its own.
    apart = of_rollout("vespo", [-1.0, -2.0], [-1.2, -2.3], [1.0, 1.0], [4, 2], correction_T=correction_T)[1]
    assert apart[0] != pytest.approx(apart[1], abs=0.01)
    # Rejected by the correction: log 1e-8 stands for log 0, and nothing is left.
    rejected = of_rollout("vespo", [-1.0], [-1.0], [1.0], correction_T=tensor([0.0], dtype=torch.float64))[1]
    assert abs(rejected[0]) < 1e-14


# --- those that look at the whole update -----------------------------------------------------------------------------


def whole(logprobs, advantages, draws=None, old=None):
    new_T = tensor(logprobs, dtype=torch.float64)
    old_T = new_T if old is None else tensor(old, dtype=torch.float64)
    draws_T = torch.zeros_like(new_T) if draws is None else tensor(draws, dtype=torch.float64)
    return Whole(new_T, old_T, tensor(advantages, dtype=torch.float64), new_T, draws_T, torch.arange(len(new_T)))


def test_clip_cov_by_hand():
    # Mean advantage 0, mean logprob -3: covariances 2*2=4, 2*-1=-2, -2*2=-4, -2*-3=6. Only the first is in (1, 5).
    logprobs, advantages = [-1.0, -4.0, -1.0, -6.0], [2.0, 2.0, -2.0, -2.0]
    update = whole(logprobs, advantages)
    loss, gradient = of_rollout("clip_cov", logprobs, logprobs, advantages, update=update)
    assert (loss, gradient) == ([0.0, -2.0, 2.0, 2.0], [0.0, -2.0, 2.0, 2.0])
    # With a band up to 7 the last is a candidate as well, and of two candidates the one with the larger draw goes;
    # with half of the tokens to take, both.
    band = {"cov_high": 7.0}
    for draws, expected in (([0.9, 0, 0, 0.1], [0.0, 2.0]), ([0.1, 0, 0, 0.9], [-2.0, 0.0])):
        update = whole(logprobs, advantages, draws)
        loss, _ = of_rollout("clip_cov", logprobs, logprobs, advantages, update=update, settings=band)
        assert [loss[0], loss[3]] == expected
    both = {**band, "cov_share": 0.5}
    loss, _ = of_rollout("clip_cov", logprobs, logprobs, advantages, update=update, settings=both)
    assert loss == [0.0, -2.0, 2.0, 0.0]


def test_clip_cov_does_not_take_what_is_clipped_already():
    # As above, but the first token has left the range upwards: it is clipped, no candidate, and there is no other.
    logprobs, advantages, old = [-1.0, -4.0, -1.0, -6.0], [2.0, 2.0, -2.0, -2.0], [-1.5, -4.0, -1.0, -6.0]
    update = whole(logprobs, advantages, old=old)
    loss, _ = of_rollout("clip_cov", logprobs, old, advantages, update=update)
    assert loss == pytest.approx([-2.56, -2.0, 2.0, 2.0])


def test_kl_cov_by_hand():
    # Covariances 4, -2, -4, 6: the last is the highest. Its log ratio 0.1: loss 2 e^0.1 + 0.1 = 2.3103418, gradient
    # 2 e^0.1 + 1 = 3.2103418. With half of the tokens the first is held, too, at 0 without gradient.
    logprobs, advantages, old = [-1.0, -4.0, -1.0, -6.0], [2.0, 2.0, -2.0, -2.0], [-1.0, -4.0, -1.0, -6.1]
    update = whole(logprobs, advantages, old=old)
    loss, gradient = of_rollout("kl_cov", logprobs, old, advantages, update=update)
    assert loss == pytest.approx([-2.0, -2.0, 2.0, 2.3103418])
    assert gradient == pytest.approx([-2.0, -2.0, 2.0, 3.2103418])
    half = {"cov_share": 0.5, "kl_pull": 2.0}
    loss, gradient = of_rollout("kl_cov", logprobs, old, advantages, update=update, settings=half)
    assert loss == pytest.approx([-2.0, -2.0, 2.0, 2.4103418])
    # What does not raise the covariance is not held, however few there are.
    all_of_them = {"cov_share": 1.0}
    _, gradient = of_rollout(
        "kl_cov", logprobs, [-1.1, -4.1, -1.1, -6.1], advantages, update=update, settings=all_of_them
    )
    rise = 2 * math.exp(0.1)
    assert gradient == pytest.approx([-rise + 1, -rise, rise, rise + 1])


def test_a_completion_that_was_sampled_twice_is_taken_twice():
    """Which of two equal tokens is held back must not depend on the last bit of its logprob."""
    logprobs, advantages = [-1.0, -1.0 + 2e-16, -3.0, -7.0], [1.0, 1.0, -1.0, 1.0]
    for order in ([0, 1, 2, 3], [1, 0, 2, 3]):
        new, a = [logprobs[i] for i in order], [advantages[i] for i in order]
        _, gradient = of_rollout("kl_cov", new, [x - 0.1 for x in new], a, update=whole(new, a))
        assert gradient[0] == pytest.approx(gradient[1])
        assert gradient[0] == pytest.approx(-math.exp(0.1) + 1)


# --- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SURROGATES)
def test_gradients_equal_finite_differences_of_every_surrogate(name):
    """Of those that hold a weight fixed, the loss is taken apart first: the weight at the point, then the logprob."""
    random = torch.Generator().manual_seed(2)
    old_T = -torch.rand(12, dtype=torch.float64, generator=random) * 3 - 0.1
    point_T = old_T + 0.3 * torch.randn(12, dtype=torch.float64, generator=random)
    advantages_T = torch.randn(12, dtype=torch.float64, generator=random)
    rollout_T = torch.arange(12) // 3
    surrogate = bind(SURROGATES, name, {"clip_low": 0.2, "clip_high": 0.28})
    at_point = Whole(point_T, old_T, advantages_T, -old_T, torch.rand(12, generator=random).double(), torch.arange(12))

    def loss(logprobs_T, weights_at_T=None):
        ratio_of_T = logprobs_T if weights_at_T is None else weights_at_T
        return surrogate(
            log_ratio_T=ratio_of_T - old_T,
            logprobs_T=logprobs_T,
            old_logprobs_T=old_T,
            advantages_T=advantages_T,
            correction_T=torch.ones_like(old_T),
            rollout_T=rollout_T,
            update=at_point,
        ).sum()

    leaf_T = point_T.clone().requires_grad_()
    loss(leaf_T).backward()
    weighted = surrogate.takes("logprobs_T") and name != "dro"
    step = 1e-6
    for i in range(12):
        shift_T = torch.zeros(12, dtype=torch.float64)
        shift_T[i] = step
        fixed = point_T if weighted else None
        if name.startswith("dppo"):  # its mask moves with the logprob, by jumps: not on these points
            fixed = point_T
        numeric = (loss(point_T + shift_T, fixed) - loss(point_T - shift_T, fixed)) / (2 * step)
        assert leaf_T.grad[i].item() == pytest.approx(numeric.item(), abs=1e-6), i


@pytest.mark.parametrize("name", SURROGATES)
def test_on_policy_every_surrogate_is_the_policy_gradient(name):
    logprobs, advantages = [-0.5, -1.5, -2.5, -1.0], [1.0, 1.0, -0.5, -0.5]
    # no token in Clip-Cov's band: covariances (A - 0.25) * (logprob + 1.375) are all below 1
    _, gradient = of_rollout(name, logprobs, logprobs, advantages, [0, 0, 1, 1])
    assert gradient == pytest.approx([-1.0, -1.0, 0.5, 0.5])


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("moved", [1e4, -1e4, math.inf, -math.inf])
@pytest.mark.parametrize("advantage", [1.0, -1.0, 0.0])
def test_however_far_the_policy_went_loss_and_gradient_are_finite(name, moved, advantage):
    """One token of three is absurd: its own gradient is bounded, and its neighbours' are numbers."""
    logprobs = [-1.0, -1e4, -math.inf][0 if moved > 0 else (1 if math.isfinite(moved) else 2)]
    old = logprobs - moved if math.isfinite(moved) else (-math.inf if moved > 0 else -1.0)
    loss, gradient = of_rollout(name, [-1.0, logprobs, -2.0], [-1.0, old, -2.0], [advantage] * 3)
    assert all(map(math.isfinite, [*loss, *gradient]))
    assert abs(gradient[1]) <= 30


@pytest.mark.parametrize("name", SURROGATES)
def test_a_token_that_cannot_occur_on_either_side_says_nothing_of_the_ratio(name):
    loss, gradient = of_rollout(name, [-1.0, -math.inf], [-1.0, -math.inf], [1.0, 1.0])
    assert all(map(math.isfinite, loss))
    assert gradient[1] == 0.0


@pytest.mark.parametrize("name", SURROGATES)
def test_no_tokens_are_no_loss(name):
    loss, gradient = of_rollout(name, [], [], [])
    assert (loss, gradient) == ([], [])


def test_advantages_get_no_gradient_of_their_own_accord():
    assert not clipped_ratio(tensor([0.1]), tensor([0.5]), **CLIP).requires_grad
