"""The loss of a micro-batch: its share of -J, put together from the algorithm's entries.

    J = sum over tokens of weight * ( filter * correction * surrogate - beta KL ) + entropy bonus

Every entry is given all data by name and takes what it names, so nothing here knows which variant is at work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from groupwise.learner.algorithm import Algorithm
from groupwise.learner.coefficients import Coefficients
from groupwise.learner.packing import MicroBatch
from groupwise.maths.sequences import cut_exp, log_ratio
from groupwise.maths.whole import Whole


@dataclass(frozen=True, slots=True)
class Scores:
    """What the policy says of a micro-batch's tokens now (with gradient), and what others said of them.

    `entropies_T` have a gradient where there is an entropy bonus.
    """

    logprobs_T: Tensor
    entropies_T: Tensor
    old_T: Tensor
    sampled_T: Tensor
    reference_T: Tensor | None


@dataclass(frozen=True, slots=True)
class Terms:
    """The loss, and what it was made of, for those who watch. `slope_T` is the surrogate's gradient by logprob."""

    loss: Tensor
    log_ratio_T: Tensor
    surrogate_T: Tensor
    slope_T: Tensor
    kl_T: Tensor | None


def objective(
    algorithm: Algorithm,
    batch: MicroBatch,
    scores: Scores,
    *,
    coefficients: Coefficients,
    tokens: int,
    update: Whole | None,
) -> Terms:
    """This micro-batch's share of -J. `tokens` are all trained tokens of the update; `update` is given where something
    looks ahead."""
    data = _data(algorithm, batch, scores, update)
    surrogate_T = algorithm.surrogate(**data)
    (slope_T,) = torch.autograd.grad(surrogate_T.sum(), scores.logprobs_T, retain_graph=True)
    loss_T = surrogate_T if algorithm.surrogate.takes("correction_T") else surrogate_T * data["correction_T"]
    for passes in algorithm.filters:
        loss_T = loss_T * passes(**data)
    kl_T = None
    if scores.reference_T is not None:
        kl_T = algorithm.divergence(logprobs_T=scores.logprobs_T, reference_logprobs_T=scores.reference_T)
        kl_T = kl_T * cut_exp(data["log_ratio_T"]) if algorithm.section.kl_ratio else kl_T
        loss_T = loss_T + coefficients.beta * kl_T
    loss = (batch.weights_T * loss_T).sum()
    if algorithm.has_bonus:
        loss = loss - coefficients.entropy * scores.entropies_T.sum() / tokens
    return Terms(
        loss=loss,
        log_ratio_T=data["log_ratio_T"].detach(),
        surrogate_T=surrogate_T.detach(),
        slope_T=slope_T,
        kl_T=None if kl_T is None else kl_T.detach(),
    )


def _data(algorithm: Algorithm, batch: MicroBatch, scores: Scores, update: Whole | None) -> dict[str, Any]:
    """Everything that an entry may name."""
    moved_T = log_ratio(scores.logprobs_T, scores.old_T)
    data: dict[str, Any] = {
        "logprobs_T": scores.logprobs_T,
        "old_logprobs_T": scores.old_T,
        "sampled_logprobs_T": scores.sampled_T,
        "entropies_T": scores.entropies_T.detach(),
        "advantages_T": batch.advantages_T,
        "rollout_T": batch.rollout_T,
        "mismatch_T": log_ratio(scores.old_T, scores.sampled_T),
        "log_ratio_T": algorithm.ratio(log_ratio_T=moved_T, rollout_T=batch.rollout_T),
        "update": update,
    }
    correction = algorithm.correction
    data["correction_T"] = torch.ones_like(scores.old_T) if correction is None else correction(**data)
    return data
