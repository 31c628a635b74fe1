"""Divergences: estimates, per token, of how far the policy has moved from the reference.

All are estimates of KL(policy || reference) from the sampled token alone; both arguments have shape [T], gradients
flow through the first. What an estimator is worth depends on where it stands:

- in the reward (`kl_in = "reward"`) only the value counts: k1 is unbiased, and what RLOO and REINFORCE++ use;
- in the loss only the gradient counts: that of k2 averages to the gradient of the KL over the policy's own samples,
  that of k3 to something near it, that of k1 to nothing. The forms with a `_plus` have the value of the one and the
  gradient of k2. `kl_ratio` multiplies by policy / old policy, and then the gradient of k1 and k3 averages to that of
  the KL, off policy too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from groupwise.maths.sequences import log_ratio
from groupwise.maths.tables import Table

Estimator: TypeAlias = Callable[[Tensor, Tensor], Tensor]

LARGEST_EXPONENT = 20.0
"""The log ratio reference/policy is cut here before `exp`, so that k3 is at most e^20 - 21 = 4.9e8, never inf. Beyond
the cut (the policy gives a token less than e^-20 of the reference's probability) the gradient is 0. The other side
grows only linearly and is not cut: a policy that runs away from the reference upwards keeps its full gradient."""


def k1(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """The log ratio itself, `logprob - reference logprob`: unbiased, negative as often as not. As a loss its gradient
    averages to zero and holds nothing back, unless `kl_ratio` is on.

    Schulman, Approximating KL Divergence (2020).

    Example: the policy at twice the reference's probability: log 2 = 0.693, gradient 1.
    """
    return log_ratio(logprobs_T, reference_logprobs_T)


def k2(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """Half the squared log ratio: `x^2 / 2`, x = logprob - reference logprob. Biased in value, but the average of its
    gradient over the policy's own samples is exactly the gradient of KL(policy || reference). verl's `mse`.

    Schulman, Approximating KL Divergence (2020). Gradient with respect to a logprob: x.

    Example: x = log 2: 0.240, gradient 0.693.
    """
    return 0.5 * log_ratio(logprobs_T, reference_logprobs_T).square()


def k3(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """GRPO's estimator: `exp(x) - x - 1` with x = reference logprob - logprob. Never negative, 0 where both agree.
    verl's `low_var_kl`.

    GRPO (DeepSeekMath), arXiv 2402.03300, equation 4; unbiased in value, from Schulman, Approximating KL Divergence
    (2020). Gradient with respect to a logprob: `1 - exp(x)`.

    Example: the policy at twice the reference's probability, x = -log 2: 0.5 + 0.693 - 1 = 0.193, gradient 0.5.
    """
    x_T = log_ratio(reference_logprobs_T, logprobs_T).clamp(max=LARGEST_EXPONENT)
    # expm1 keeps the digits that exp(x) - 1 loses where policy and reference nearly agree, which is almost everywhere.
    return torch.expm1(x_T) - x_T


def absolute(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """The size of the log ratio, `|logprob - reference logprob|`: a pull of the same strength however far away. verl's
    `abs`. A biased relative of k1.

    Example: x = -log 2: 0.693, gradient -1.
    """
    return log_ratio(logprobs_T, reference_logprobs_T).abs()


def k1_plus(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """The value of k1, the gradient of k2. verl's `k1+`.

    Example: x = log 2: 0.693, gradient 0.693.
    """
    return _with_gradient_of_k2(k1, logprobs_T, reference_logprobs_T)


def k3_plus(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """The value of k3, the gradient of k2. verl's `k3+`.

    Example: x = log 2: 0.193, gradient 0.693.
    """
    return _with_gradient_of_k2(k3, logprobs_T, reference_logprobs_T)


def absolute_plus(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """The size of the log ratio, with the gradient of k2. verl's `abs+`.

    Example: x = -log 2: 0.693, gradient -0.693.
    """
    return _with_gradient_of_k2(absolute, logprobs_T, reference_logprobs_T)


DIVERGENCES: Table[Tensor] = Table(
    "divergence",
    {
        "k1": k1,
        "k2": k2,
        "k3": k3,
        "absolute": absolute,
        "k1_plus": k1_plus,
        "k3_plus": k3_plus,
        "absolute_plus": absolute_plus,
    },
    offers=("logprobs_T", "reference_logprobs_T"),
)


def _with_gradient_of_k2(estimator: Estimator, logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    gradient_T = k2(logprobs_T, reference_logprobs_T)
    return estimator(logprobs_T, reference_logprobs_T).detach() + (gradient_T - gradient_T.detach())
