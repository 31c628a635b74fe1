"""The pieces put together: packed and weighted, they are the padded and masked losses that TRL documents.

The padded side is written out here from the formulas, on [B, L] tensors with a mask, and shares no code with ours.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor

from groupwise.maths.advantages import group_normalized
from groupwise.maths.divergences import DIVERGENCES
from groupwise.maths.surrogates import SURROGATES
from groupwise.maths.tables import Table, bind
from groupwise.maths.weights import WEIGHTS

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

    def packed(self, values_BL):
        return values_BL[self.mask_BL]


def packed_gradient(batch, weights, beta, micro_batches, surrogate="clipped_ratio", table=SURROGATES):
    """Loss and gradient [T] of our side, summed over micro-batches that hold whole rollouts."""
    new_T = batch.packed(batch.new_BL).requires_grad_()
    old_T, reference_T = batch.packed(batch.old_BL), batch.packed(batch.reference_BL)
    weight_R = bind(WEIGHTS, weights, SETTINGS)(batch.lengths_R, batch.group_R)
    surrogate_of, divergence_of = bind(table, surrogate, SETTINGS), bind(DIVERGENCES, "k3", SETTINGS)
    total = 0.0
    for rollouts in micro_batches:
        here = torch.isin(batch.rollout_T, tensor(rollouts, dtype=torch.long))
        rollout_T = batch.rollout_T[here]
        loss_T = surrogate_of(new_T[here], old_T[here], batch.advantages_B[rollout_T], rollout_T)
        loss_T = loss_T + beta * divergence_of(new_T[here], reference_T[here])
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


def mean_of_rollout(values_T, rollout_T):
    """Mean over the tokens of the rollout that each token belongs to."""
    names, inverse_T = rollout_T.unique(return_inverse=True)
    sums = values_T.new_zeros(len(names)).index_add(0, inverse_T, values_T)
    return (sums / inverse_T.bincount())[inverse_T]


def sequence_ratio(logprobs_T, old_logprobs_T, advantages_T, rollout_T, *, clip_low, clip_high):
    """A sequence-level surrogate (GSPO, arXiv 2507.18071), to see that the seam carries one."""
    ratio_T = mean_of_rollout(logprobs_T - old_logprobs_T, rollout_T).exp()
    return -torch.minimum(ratio_T * advantages_T, ratio_T.clamp(1 - clip_low, 1 + clip_high) * advantages_T)


LATER = Table("surrogate", {**SURROGATES, "sequence_ratio": sequence_ratio})


def test_a_sequence_level_surrogate_is_one_function_and_one_row():
    # Rollout 1 has log ratios 0.1 and 0.3, mean 0.2, ratio e^0.2 = 1.2214, inside 1.28. Sequence mean of one rollout:
    # loss -1.2214 A, and each of its two tokens has the gradient -1.2214 A / 2.
    new_T = tensor([0.1, 0.3], dtype=torch.float64, requires_grad=True)
    surrogate = bind(LATER, "sequence_ratio", SETTINGS)
    weight_R = bind(WEIGHTS, "sequence_mean", SETTINGS)(tensor([2]), tensor([0]))
    loss_T = surrogate(new_T, torch.zeros(2), tensor([1.5, 1.5]), tensor([5, 5]))
    (weight_R[tensor([0, 0])] * loss_T).sum().backward()
    assert loss_T.tolist() == pytest.approx([-1.832104] * 2)  # -1.2214028 * 1.5
    assert new_T.grad.tolist() == pytest.approx([-0.916052] * 2)


partitions = st.lists(st.integers(0, 3), min_size=8, max_size=8)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("surrogate", LATER)
@settings(max_examples=15)
@given(micro_batch_R=partitions, seed=st.integers(0, 1000))
def test_any_split_into_micro_batches_gives_the_same_gradient(weights, surrogate, micro_batch_R, seed):
    batch = Batch(seed)
    split = [[r for r in range(8) if micro_batch_R[r] == b] for b in range(4)]
    loss, gradient_T = packed_gradient(batch, weights, BETA, split, surrogate, LATER)
    whole_loss, whole_T = packed_gradient(batch, weights, BETA, ALL, surrogate, LATER)
    assert loss == pytest.approx(whole_loss, abs=1e-12)
    torch.testing.assert_close(gradient_T, whole_T, rtol=0, atol=1e-13)


def batch_normalized(rewards_QG):
    """A batch-level advantage (REINFORCE++ with a group baseline, in part), to see that the seam carries one."""
    centred_QG = [[r - sum(rewards_G) / len(rewards_G) for r in rewards_G] for rewards_G in rewards_QG]
    flat = [value for row in centred_QG for value in row]
    std = (sum(value**2 for value in flat) / (len(flat) - 1)) ** 0.5
    return [[value / std for value in row] for row in centred_QG]


def test_a_batch_level_advantage_is_one_function_and_one_row():
    # centred +-1 and +-3: squares 1 + 1 + 9 + 9 = 20, std sqrt(20 / 3) = 2.5819889
    advantage = bind(Table("advantage", {"batch_normalized": batch_normalized}), "batch_normalized", SETTINGS)
    first, second = advantage([[2.0, 0.0], [0.0, 6.0]])
    assert first == pytest.approx([0.3872983, -0.3872983])
    assert second == pytest.approx([-1.1618950, 1.1618950])
