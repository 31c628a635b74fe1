"""Surrogates: the policy term of the loss, one number per token, to be minimised.

Every entry is called with four packed tensors of shape [T] that hold trained tokens only; there is no mask:

- `logprobs_T`      of the policy that is trained; gradients flow through this one
- `old_logprobs_T`  of the policy that the completions came from, when the optimisation of this batch began
- `advantages_T`    each token carries its rollout's advantage
- `rollout_T`       index of the rollout that the token belongs to (any non-negative integers; a rollout is never
                    split over two calls), for variants that look at whole sequences

How the tokens are averaged is not decided here but in `weights`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from groupwise.maths.tables import Table

LARGEST_LOG_RATIO = 20.0
"""Log ratios are cut to +-20 before `exp`. A token whose probability changed by a factor of more than e^20 = 4.9e8 has
a finite loss, that of the cut ratio, and the gradient 0: a true gradient of that size would leave nothing of the
update's other tokens after gradient clipping."""


def clipped_ratio(
    logprobs_T: Tensor,
    old_logprobs_T: Tensor,
    advantages_T: Tensor,
    rollout_T: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> Tensor:
    """PPO's and GRPO's `-min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A)`, ratio = exp(new - old logprob).

    PPO, arXiv 1707.06347, equation 7; GRPO (DeepSeekMath), arXiv 2402.03300, equation 3. `clip_high > clip_low` is
    the clip-higher of DAPO, arXiv 2503.14476, section 3.1.

    The gradient with respect to a logprob is `-ratio * A`, and 0 where the ratio has already left the clip range in
    the direction that the advantage asks for.

    Example: ratio 1.5, A 1, clip_high 0.2: loss -1.2, gradient 0. The same ratio with A -1: loss 1.5, gradient 1.5.
    """
    ratio_T = torch.exp((logprobs_T - old_logprobs_T).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO))
    clipped_T = ratio_T.clamp(1.0 - clip_low, 1.0 + clip_high)
    return -torch.minimum(ratio_T * advantages_T, clipped_T * advantages_T)


SURROGATES: Table[Tensor] = Table("surrogate", {"clipped_ratio": clipped_ratio})
