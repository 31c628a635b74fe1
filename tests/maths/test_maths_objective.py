"""The pieces put together: packed and weighted, they are the padded and masked losses that TRL documents.

The padded side is written out here from the formulas, on [B, L] tensors with a mask, and shares no code with ours.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor

from groupwise.maths.advantages import group_normalized
from groupwise.maths.divergences import k3
from groupwise.maths.ratios import RATIOS
from groupwise.maths.surrogates import SURROGATES
from groupwise.maths.tables import bind
from groupwise.maths.weights import WEIGHTS
from groupwise.maths.whole import Whole

# ruff: noqa: N803, N806 - axis letters

LOW, HIGH, BETA, WIDTH = 0.2, 0.28, 0.04, 7
SETTINGS = {"clip_low": LOW, "clip_high": HIGH, "max_new_tokens": WIDTH}


class Batch:
    """Two groups of four ragged rollouts, one of them empty: padded [B, L], and packed [T]."""

    def __init__(self, seed, lengths=(3, 7, 1, 4, 0, 2, 7, 5), group_size=4):
        random = torch.Generator().manual_seed(seed)
        self.lengths_R = tensor(lengths)
        self.group_R = torch.arange(len(lengths)) // group_size
        self.mask_BL = torch.arange(WIDTH)[None] < self.lengths_R[:, None]
        self.old_BL = -torch.rand(len(lengths), WIDTH, dtype=torch.float64, generator=random) * 3
        self.new_BL = self.old_BL + torch.randn(self.old_BL.shape, dtype=torch.float64, generator=random) * 0.3
        self.reference_BL = self.old_BL + torch.randn(self.old_BL.shape, dtype=torch.float64, generator=random) * 0.5
        rewards_QG = torch.randint(0, 3, (len(lengths) // group_size, group_size), generator=random).tolist()
        self.advantages_B = tensor(group_normalized(rewards_QG), dtype=torch.float64).flatten()
        self.rollout_T = self.mask_BL.nonzero()[:, 0]
        self.draws_T = torch.rand(len(self.rollout_T), dtype=torch.float64, generator=random)

    def packed(self, values_BL):
        return values_BL[self.mask_BL]


def packed_gradient(batch, weights, beta, micro_batches, surrogate="clipped_ratio", ratio="token"):
    """Loss and gradient [T] of our side, summed over micro-batches that hold whole rollouts."""
    new_T = batch.packed(batch.new_BL).requires_grad_()
    old_T, reference_T = batch.packed(batch.old_BL), batch.packed(batch.reference_BL)
    weight_R = bind(WEIGHTS, weights, SETTINGS)(lengths_R=batch.lengths_R, group_R=batch.group_R)
    surrogate_of, ratio_of = bind(SURROGATES, surrogate, SETTINGS), bind(RATIOS, ratio, SETTINGS)
    everything = Whole(new_T.detach(), old_T, batch.advantages_B[batch.rollout_T], -old_T, batch.draws_T, None)
    total = 0.0
    for rollouts in micro_batches:
        here = torch.isin(batch.rollout_T, tensor(rollouts, dtype=torch.long))
        rollout_T = batch.rollout_T[here]
        loss_T = surrogate_of(
            log_ratio_T=ratio_of(log_ratio_T=new_T[here] - old_T[here], rollout_T=rollout_T),
            logprobs_T=new_T[here],
            old_logprobs_T=old_T[here],
            advantages_T=batch.advantages_B[rollout_T],
            correction_T=torch.ones_like(old_T[here]),
            rollout_T=rollout_T,
            update=everything._replace(here_T=here.nonzero()[:, 0]),
        )
        loss_T = loss_T + beta * k3(new_T[here], reference_T[here])
        loss = (weight_R[rollout_T] * loss_T).sum()
        loss.backward()
        total += loss.item()
    return total, new_T.grad


def padded_gradient(batch, loss_type, beta, micro_batches):
    """Loss and gradient [T] of the documented formulas, accumulated over micro-batches (one rank, S = GA)."""
    new_BL = batch.new_BL.clone().requires_grad_()
    all_tokens, accumulation = batch.mask_BL.sum(), len(micro_batches)
    total = 0.0
    for rows in micro_batches:
        new, old, m = new_BL[rows], batch.old_BL[rows], batch.mask_BL[rows].double()
        advantage = batch.advantages_B[rows][:, None]
        ratio = (new - old).exp()
        per_token = -torch.min(ratio * advantage, ratio.clip(1 - LOW, 1 + HIGH) * advantage)
        x = batch.reference_BL[rows] - new
        per_token = per_token + beta * (x.exp() - x - 1)
        if loss_type == "grpo":
            loss = ((per_token * m).sum(1) / m.sum(1).clamp(min=1)).mean() / accumulation
        elif loss_type == "bnpo":
            loss = (per_token * m).sum() / m.sum().clamp(min=1) / accumulation
        elif loss_type == "dr_grpo":
            loss = (per_token * m).sum() / (len(rows) * WIDTH) / accumulation
        elif loss_type == "dapo":
            loss = (per_token * m).sum() / all_tokens.clamp(min=1)
        loss.backward()
        total += loss.item()
    return total, batch.packed(new_BL.grad)


ALL, HALVES, PAIRS = [list(range(8))], [[0, 1, 2, 3], [4, 5, 6, 7]], [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize("beta", [0.0, BETA])
@pytest.mark.parametrize(
    ("loss_type", "weights", "trl_batches"),
    [
        ("grpo", "sequence_mean", ALL),
        ("grpo", "sequence_mean", PAIRS),
        ("dr_grpo", "fixed_length", ALL),
        ("dr_grpo", "fixed_length", HALVES),
        ("dapo", "token_mean", ALL),
        ("dapo", "token_mean", PAIRS),
        ("bnpo", "token_mean", ALL),  # split up, bnpo depends on the split, and ours does not
    ],
)
def test_packed_weights_are_the_padded_reduction(loss_type, weights, trl_batches, beta):
    batch = Batch(seed=3)
    loss, gradient_T = packed_gradient(batch, weights, beta, HALVES)
    expected_loss, expected_T = padded_gradient(batch, loss_type, beta, trl_batches)
    assert gradient_T.abs().max() > 1e-3
    assert loss == pytest.approx(expected_loss, abs=1e-12)
    torch.testing.assert_close(gradient_T, expected_T, rtol=0, atol=1e-12)


def test_the_comparison_above_can_fail():
    batch = Batch(seed=3)
    _, right_T = padded_gradient(batch, "grpo", BETA, ALL)
    for weights in ("token_mean", "fixed_length", "prompt_mean"):
        assert (packed_gradient(batch, weights, BETA, ALL)[1] - right_T).abs().max() > 1e-3
    assert (packed_gradient(batch, "sequence_mean", 0.0, ALL)[1] - right_T).abs().max() > 1e-4
    # and TRL's bnpo, split in pairs, is not the mean over the tokens of the update
    assert (
        padded_gradient(batch, "bnpo", BETA, PAIRS)[1] - padded_gradient(batch, "dapo", BETA, PAIRS)[1]
    ).abs().max() > 1e-3


def test_a_whole_update_by_hand():
    # One group, rewards 1 and 0: A = +-0.5 / 0.7072068 = +-0.7070068. Lengths 1 and 3, old = new = reference.
    # Each token's gradient is -weight * A: sequence mean 1/2 and 1/6, token mean 1/4 for all.
    batch = Batch(seed=0, lengths=(1, 3), group_size=2)
    batch.advantages_B = tensor(group_normalized([[1.0, 0.0]])).double().flatten()
    batch.new_BL = batch.reference_BL = batch.old_BL
    first, others = -0.3535034, 0.1178345
    assert packed_gradient(batch, "sequence_mean", BETA, [[0, 1]])[1].tolist() == pytest.approx([first] + [others] * 3)
    a = 0.1767517
    assert packed_gradient(batch, "token_mean", BETA, [[0, 1]])[1].tolist() == pytest.approx([-a, a, a, a])


partitions = st.lists(st.integers(0, 3), min_size=8, max_size=8)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("ratio", RATIOS)
@settings(max_examples=4)
@given(micro_batch_R=partitions, seed=st.integers(0, 1000))
def test_any_split_into_micro_batches_gives_the_same_gradient(weights, surrogate, ratio, micro_batch_R, seed):
    batch = Batch(seed)
    split = [[r for r in range(8) if micro_batch_R[r] == b] for b in range(4)]
    loss, gradient_T = packed_gradient(batch, weights, BETA, split, surrogate, ratio)
    whole_loss, whole_T = packed_gradient(batch, weights, BETA, ALL, surrogate, ratio)
    assert loss == pytest.approx(whole_loss, rel=1e-13, abs=1e-12)
    torch.testing.assert_close(gradient_T, whole_T, rtol=1e-12, atol=1e-13)
