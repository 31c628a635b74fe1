"""Weights: how the losses of tokens are averaged, as one weight per rollout that all its tokens share.

The loss of an update is `sum over T of weight_R[rollout_T] * loss_T`. The weights come from counts of the *whole*
update, known before the first backward pass, so the sum may be split into micro-batches in any way, over any number of
ranks, packed or padded, and the gradient stays the same.

An entry names what it needs of two integer tensors of shape [R], R being all rollouts of the update:

- `lengths_R`  trained tokens of each rollout, 0 for one that trains nothing (empty, or masked out)
- `group_R`    index of the group it belongs to

and returns float64: a handful of numbers, exact however many tokens there are. Keep the counts on the CPU (mps knows no
float64) and cast the weights to the loss's precision and device. An empty rollout gets weight 0. It still counts as one
of the R rollouts, as in TRL: losing one completion does not make the others louder.
"""

from __future__ import annotations

import torch
from torch import Tensor

from groupwise.maths.tables import Count, Table


def token_mean(lengths_R: Tensor) -> Tensor:
    """DAPO: every token of the update weighs the same, `1 / (all trained tokens)`. TRL's `dapo` and `bnpo`, verl's
    `token-mean`.

    DAPO, arXiv 2503.14476, section 3.3. The paper's formula averages tokens within one prompt, which is `prompt_mean`;
    implementations, its authors' included, do this.

    Example: lengths [1, 3] give [1/4, 1/4].
    """
    return _of_trained(lengths_R, 1.0 / lengths_R.sum().clamp(min=1).double())


def sequence_mean(lengths_R: Tensor) -> Tensor:
    """GRPO: mean over the tokens of each rollout, then over rollouts, `1 / (R * length)`. TRL's `grpo`, verl's
    `seq-mean-token-mean`. A token of a short completion weighs more.

    GRPO (DeepSeekMath), arXiv 2402.03300, equation 3.

    Example: lengths [1, 3] give [1/2, 1/6].
    """
    return _of_trained(lengths_R, 1.0 / (lengths_R.numel() * lengths_R.clamp(min=1).double()))


def fixed_length(lengths_R: Tensor, *, max_new_tokens: Count) -> Tensor:
    """Dr. GRPO: sum over tokens, divided by what would have been possible, `1 / (R * max_new_tokens)`. No length bias.
    TRL's `dr_grpo`, verl's `seq-mean-token-sum-norm`.

    Understanding R1-Zero-Like Training, arXiv 2503.20783, section 3.2.

    Example: lengths [1, 3] and max_new_tokens 5 give [1/10, 1/10].
    """
    return _of_trained(lengths_R, 1.0 / (lengths_R.numel() * torch.full_like(lengths_R, max_new_tokens).double()))


def prompt_mean(lengths_R: Tensor, group_R: Tensor) -> Tensor:
    """Mean over the tokens of each group, then over groups, `1 / (groups * tokens of the group)`.

    DAPO, arXiv 2503.14476, equation 8 as printed; ScaleRL, arXiv 2510.13786.

    Example: lengths [1, 3, 2], groups [0, 0, 1] give [1/8, 1/8, 1/4].
    """
    tokens_Q = torch.bincount(group_R, weights=lengths_R.double()).double()
    groups = torch.bincount(group_R).count_nonzero()
    return _of_trained(lengths_R, 1.0 / (groups * tokens_Q.clamp(min=1)[group_R]))


def sequence_sum(lengths_R: Tensor) -> Tensor:
    """Sum over the tokens of each rollout, mean over rollouts, `1 / R`. verl's `seq-mean-token-sum`. With the ratio of
    a whole completion it is LUSPO: a completion's loss times its length. TRL's `luspo`.

    Length-Unbiased Sequence Policy Optimization, arXiv 2602.05261.

    Example: lengths [1, 3] give [1/2, 1/2].
    """
    return _of_trained(lengths_R, torch.ones_like(lengths_R).double() / max(lengths_R.numel(), 1))


def token_sum(lengths_R: Tensor) -> Tensor:
    """No mean at all: the loss is the sum over all tokens, and grows with the batch, as in REINFORCE, Williams (1992).
    verl's `token-sum`, tinker's losses. The learning rate has to know the size of the batch.

    Example: lengths [1, 3] give [1, 1].
    """
    return _of_trained(lengths_R, torch.ones_like(lengths_R).double())


WEIGHTS: Table[Tensor] = Table(
    "weights",
    {
        "token_mean": token_mean,
        "sequence_mean": sequence_mean,
        "fixed_length": fixed_length,
        "prompt_mean": prompt_mean,
        "sequence_sum": sequence_sum,
        "token_sum": token_sum,
    },
    offers=("lengths_R", "group_R"),
)


def _of_trained(lengths_R: Tensor, weight: Tensor) -> Tensor:
    return torch.where(lengths_R > 0, weight, 0.0)
