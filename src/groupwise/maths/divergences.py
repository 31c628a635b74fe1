"""Divergences: estimates, per token, of how far the policy has moved from the reference.

All are estimates of KL(policy || reference) from the sampled token alone; both arguments have shape [T], gradients
flow through the first. Used as a loss, an estimator must also have a useful gradient. k1, the plain log ratio, is
missing on purpose: its gradient averages to zero over the policy's own samples, so as a loss it holds nothing back.
"""

from __future__ import annotations

import torch
from torch import Tensor

from groupwise.maths.tables import Table

LARGEST_EXPONENT = 20.0
"""The log ratio reference/policy is cut here before `exp`, so that k3 is at most e^20 - 21 = 4.9e8, never inf. Beyond
the cut (the policy gives a token less than e^-20 of the reference's probability) the gradient is 0. The other side
grows only linearly and is not cut: a policy that runs away from the reference upwards keeps its full gradient."""


def k3(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """GRPO's estimator: `exp(x) - x - 1` with x = reference logprob - logprob. Never negative, 0 where both agree.

    GRPO (DeepSeekMath), arXiv 2402.03300, equation 4; unbiased in value, from Schulman, Approximating KL Divergence
    (2020). Gradient with respect to a logprob: `1 - exp(x)`.

    Example: the policy at twice the reference's probability, x = -log 2: 0.5 + 0.693 - 1 = 0.193, gradient 0.5.
    """
    x_T = (reference_logprobs_T - logprobs_T).clamp(max=LARGEST_EXPONENT)
    # expm1 keeps the digits that exp(x) - 1 loses where policy and reference nearly agree, which is almost everywhere.
    return torch.expm1(x_T) - x_T


def k2(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """Half the squared log ratio: `x^2 / 2`, x = logprob - reference logprob. Biased in value, but the average of its
    gradient over the policy's own samples is exactly the gradient of KL(policy || reference).

    Schulman, Approximating KL Divergence (2020). Gradient with respect to a logprob: x.

    Example: x = log 2: 0.240, gradient 0.693.
    """
    return 0.5 * (logprobs_T - reference_logprobs_T).square()


DIVERGENCES: Table[Tensor] = Table("divergence", {"k3": k3, "k2": k2})
