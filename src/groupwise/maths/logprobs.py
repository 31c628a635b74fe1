"""Logprobs of chosen tokens out of features and a head, a chunk of tokens at a time.

The logits of a batch are its largest tensor by far: 8192 tokens and a vocabulary of 151,936 are 5 GB in fp32, and a
plain backward pass wants it several times. Only one number per token is needed of it, so the logits of `chunk` tokens
exist at a time, in the forward as in the backward pass, and nothing of the shape [tokens x vocabulary] is ever kept.

Three ways, by what has to be differentiated, all with the same result:

- nothing: chunk after chunk;
- the head too (full fine-tuning, tied embeddings): the backward pass computes each chunk's logits again (checkpointing,
  arXiv 1604.06174); only the last chunk, which the backward pass wants first, is kept instead;
- the features only (a frozen head, as under LoRA): the gradient of a logprob with respect to its own features does not
  depend on the loss, so it is computed while the logits are there, and the backward pass is a multiplication.
"""

# ruff: noqa: N803, N806 - axis letters; C is the tokens of one chunk, V the vocabulary

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

LOGITS = 1 << 26
"""Logits of a chunk at most, 256 MB in fp32: a vocabulary of 151,936 has chunks of 441 tokens, ..."""
FEWEST = 64
"""... but no vocabulary makes them shorter than this."""

Head: TypeAlias = Callable[[Tensor], Tensor]
"""Features [C, hidden] -> logits [C, V]. Any callable whose rows do not look at each other."""

Entropy: TypeAlias = Literal["none", "observed", "differentiable"]

Scored: TypeAlias = tuple[Tensor, Tensor | None]
"""Logprobs and, if they were wanted, entropies."""

Score: TypeAlias = Callable[[Tensor, Tensor, Entropy], Scored]
"""Features and targets of one chunk -> logprobs [C], entropies [C]."""


def chunked_logprobs(
    hidden_T: Tensor,
    targets_T: Tensor,
    head: Head,
    *,
    temperature: float,
    chunk: int,
    with_entropy: bool = False,
    entropy_gradient: bool = False,
) -> Scored:
    """`log_softmax(head(hidden) / temperature)` of the target tokens, and the entropy of the distribution at each.

    Shapes: hidden [T, H], targets [T] -> [T], and [T] or None. Computed in fp32, whatever the logits are in (fp64 stays
    fp64). Gradients flow through the logprobs into the features and every parameter of the head. Entropies are for
    looking at, without gradient, unless `entropy_gradient`. T = 0 is fine and stays differentiable. The backward pass
    works in place: a second one through the same graph raises.

    Example: `chunked_logprobs(features_T, targets_T, model.lm_head, temperature=1.0, chunk=1024)`
    """
    assert hidden_T.ndim == 2 and targets_T.shape == hidden_T.shape[:1], (hidden_T.shape, targets_T.shape)
    assert temperature > 0 and chunk > 0, f"temperature and chunk must be positive, got {temperature} and {chunk}"
    assert with_entropy or not entropy_gradient, "entropy_gradient needs with_entropy"
    entropy: Entropy = "differentiable" if entropy_gradient else "observed" if with_entropy else "none"

    def score(hidden_C: Tensor, targets_C: Tensor, wanted: Entropy) -> Scored:
        return cast(Scored, _ChosenLogprobs.apply(head(hidden_C), targets_C, temperature, wanted))

    # No rows cost nothing, and show whether the head is trained and how wide its logits are.
    probe = head(hidden_T.detach()[:0])
    chunk = min(chunk, max(LOGITS // max(probe.shape[1], 1), FEWEST))
    if not (torch.is_grad_enabled() and (hidden_T.requires_grad or probe.requires_grad)):
        return _joined([score(*piece, entropy) for piece in _pieces(hidden_T, targets_T, chunk)])
    # Features as wide as the logits come from a model whose head could not be told apart: then [T, H] is not small.
    if entropy != "differentiable" and not probe.requires_grad and hidden_T.shape[1] < probe.shape[1]:
        return cast(Scored, _FrozenHead.apply(hidden_T, targets_T, score, chunk, entropy))
    return _recomputed(score, _pieces(hidden_T, targets_T, chunk), entropy)


def _pieces(hidden_T: Tensor, targets_T: Tensor, chunk: int) -> list[tuple[Tensor, Tensor]]:
    """As few pieces of at most `chunk` tokens as possible, all of about one size; a single empty one if T = 0."""
    tokens = len(targets_T)
    size = math.ceil(tokens / max(math.ceil(tokens / chunk), 1))
    return list(zip(torch.split(hidden_T, max(size, 1)), torch.split(targets_T, max(size, 1)), strict=True))


def _recomputed(score: Score, pieces: list[tuple[Tensor, Tensor]], entropy: Entropy) -> Scored:
    again = False

    def score_once(hidden_C: Tensor, targets_C: Tensor) -> Scored:
        # What the backward pass computes again is for the gradient only: entropies that have none were observed before.
        return score(hidden_C, targets_C, "none" if again and entropy == "observed" else entropy)

    parts = [cast(Scored, checkpoint(score_once, *piece, use_reentrant=False)) for piece in pieces[:-1]]
    parts.append(score_once(*pieces[-1]))
    again = True
    return _joined(parts)


def _joined(parts: list[Scored]) -> Scored:
    entropies = [entropy_C for _, entropy_C in parts if entropy_C is not None]
    return torch.cat([logprobs_C for logprobs_C, _ in parts]), torch.cat(entropies) if entropies else None


class _FrozenHead(torch.autograd.Function):
    """Logprobs of all chunks; kept for the backward pass: the gradient of each with respect to its own features."""

    @staticmethod
    def forward(
        ctx: Any, hidden_T: Tensor, targets_T: Tensor, score: Score, chunk: int, entropy: Entropy
    ) -> tuple[Tensor, Tensor | None]:
        parts: list[Scored] = []
        slopes: list[Tensor] = []
        for hidden_C, targets_C in _pieces(hidden_T, targets_T, chunk):
            with torch.enable_grad():
                leaf_C = hidden_C.detach().requires_grad_()
                logprobs_C, entropy_C = score(leaf_C, targets_C, entropy)
            slopes += torch.autograd.grad(logprobs_C, leaf_C, torch.ones_like(logprobs_C))
            parts.append((logprobs_C.detach(), entropy_C))
        logprobs_T, entropies_T = _joined(parts)
        ctx.save_for_backward(torch.cat(slopes))
        if entropies_T is not None:
            ctx.mark_non_differentiable(entropies_T)
        return logprobs_T, entropies_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (slopes_T,) = cast(tuple[Tensor], ctx.saved_tensors)
        grad_T = cast(Tensor, grads[0])
        return (grad_T[:, None] * slopes_T).to(slopes_T.dtype), None, None, None, None


class _ChosenLogprobs(torch.autograd.Function):
    """Logits of one chunk -> logprobs of its targets, and entropies, through one buffer of the logits' size."""

    @staticmethod
    def forward(
        ctx: Any, logits_CV: Tensor, targets_C: Tensor, temperature: float, entropy: Entropy
    ) -> tuple[Tensor, Tensor | None]:
        dtype = torch.promote_types(logits_CV.dtype, torch.float32)
        scaled_CV = logits_CV if temperature == 1 else logits_CV.to(dtype) / temperature
        logprobs_CV = F.log_softmax(scaled_CV, dim=-1, dtype=dtype)
        chosen_C = logprobs_CV.gather(-1, targets_C[:, None]).squeeze(-1)
        # nansum: a token that cannot occur (logit -inf) is 0 * -inf in the sum, and adds nothing to an entropy.
        entropy_C = None if entropy == "none" else -logprobs_CV.exp().mul_(logprobs_CV).nansum(-1)
        ctx.save_for_backward(logprobs_CV, targets_C, entropy_C if entropy == "differentiable" else None)
        if entropy_C is not None and entropy == "observed":
            ctx.mark_non_differentiable(entropy_C)
        ctx.temperature, ctx.logits_dtype = temperature, logits_CV.dtype
        return chosen_C, entropy_C

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # times temperature: d chosen / d logits = one-hot - p, d entropy / d logits = -p (log p + entropy)
        logprobs_CV, targets_C, entropy_C = cast(tuple[Tensor, Tensor, Tensor | None], ctx.saved_tensors)
        chosen_grad_C1 = cast(Tensor, grads[0])[:, None] / ctx.temperature
        if entropy_C is None:
            grad_CV = logprobs_CV.exp_().mul_(-chosen_grad_C1)
        else:
            entropy_grad_C1 = cast(Tensor, grads[1])[:, None] / ctx.temperature
            p_CV = logprobs_CV.exp()
            pull_CV = torch.nan_to_num_(logprobs_CV.mul_(p_CV), nan=0.0).mul_(entropy_grad_C1)
            grad_CV = p_CV.mul_(-chosen_grad_C1 - entropy_grad_C1 * entropy_C[:, None]).sub_(pull_CV)
        grad_CV.scatter_add_(-1, targets_C[:, None], chosen_grad_C1)
        return grad_CV.to(ctx.logits_dtype), None, None, None
