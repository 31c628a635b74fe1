"""The self-check at load: trunk and branch is used only where it is proven equal to the model's own forward.

A probe of two small groups is run four ways: each sequence alone through the whole untouched model; through our head
behind the model's own backbone; packed, with trunk-and-branch attention; and in training mode. What disagrees is not
used, and the policy says why. There is no architecture list: whatever a model does, it does it on the probe or it
falls back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from groupwise.errors import ModelError
from groupwise.models.attention import UnsupportedError, attention_is_replaceable, carries_state
from groupwise.models.layout import PackedLayout
from groupwise.models.policy import Policy
from groupwise.models.trees import PackedTrees, Tree, targets_of

TOLERANCE: Mapping[torch.dtype, float] = {
    torch.float64: 1e-8,
    torch.float32: 5e-5,
    torch.float16: 0.05,
    torch.bfloat16: 0.25,
}
"""Difference of logprobs that still counts as equal, by the precision they are computed in: the largest one, but in 16
bits the mean, for there a single token may stray far with nothing wrong."""


def choose_attention(policy: Policy, wanted: str) -> None:
    """Set the policy to trunk and branch if it is wanted and proven, else to plain. See `ModelSection.attention`."""
    name = type(policy.model).__name__
    if policy.context < 2:
        raise ModelError(
            f"{name} holds {policy.context} tokens at once (max_position_embeddings in its config.json): a prompt and "
            "a completion need one each. Take a model with a longer context."
        )
    trees = probe(policy)
    with torch.inference_mode():
        expected_T = alone(policy, trees)
        if not bool(expected_T.isfinite().all()):
            raise ModelError(f"{name} in {policy.dtype} gives logprobs that are not finite: try another model.dtype")
        policy.use("plain", "model.attention = plain")
        if why := _fails(policy, trees, expected_T) and _fails_with_own_logits(policy, trees, expected_T):
            raise ModelError(
                f"{name}: a padded batch gives other logprobs than each sequence alone ({why}). Such a model cannot "
                "be trained in batches."
            )
        if wanted != "plain":
            why = _why_not(policy, trees, expected_T)
            policy.use("plain" if why else "trunk_and_branch", why)
            if why and wanted == "trunk_and_branch":
                raise ModelError(
                    f"model.attention = trunk_and_branch, but {name} does not fit it: {why}. "
                    'Use model.attention = "auto" to fall back to plain batches.'
                )
        with policy.training():
            if why := _fails(policy, trees, expected_T):
                raise ModelError(
                    f"{name} gives other logprobs in training mode than those it samples with ({why}). "
                    "If model.gradient_checkpointing is on, turn it off."
                )


def probe(policy: Policy) -> list[Tree]:
    """Two groups of random tokens, ragged: branches of one token, of several, and longer than a small window."""
    generator = torch.Generator().manual_seed(20_240_402)
    window = cast("int | None", policy.model.config.get_text_config().to_dict().get("sliding_window"))
    stretch = window if window is not None and window <= 64 else 0

    def tokens(length: int) -> tuple[int, ...]:
        room = max(policy.context // 2 - 1, 1)
        drawn = torch.randint(0, policy.vocabulary, (min(length, room),), generator=generator)
        return tuple(cast(list[int], drawn.tolist()))

    return [
        Tree(tokens(5 + stretch), (tokens(6), tokens(1), tokens(9 + stretch))),
        Tree(tokens(11), (tokens(3), tokens(2 + stretch))),
    ]


def alone(policy: Policy, trees: Sequence[Tree]) -> Tensor:
    """The logprobs of each sequence alone through the untouched model: what everything else is measured against."""
    pieces: list[Tensor] = []
    for tree in trees:
        for branch in tree.branches:
            ids = torch.tensor([[*tree.trunk, *branch]], device=policy.device)
            logits = cast(Tensor, policy.model(input_ids=ids, use_cache=False).logits)[0, len(tree.trunk) - 1 : -1]
            pieces.append(torch.log_softmax(logits.double(), -1).gather(-1, ids[0, len(tree.trunk) :, None])[:, 0])
    return torch.cat(pieces)


def _why_not(policy: Policy, trees: Sequence[Tree], expected_T: Tensor) -> str:
    """Why trunk and branch cannot be used; empty if it can."""
    if not attention_is_replaceable(policy.model):
        return "its attention cannot be replaced"
    if carries_state(policy.model):
        return "it carries a state from token to token, beside or instead of attention"
    policy.use("trunk_and_branch")
    return _fails(policy, trees, expected_T) or _misheard(policy, trees)


def _fails_with_own_logits(policy: Policy, trees: Sequence[Tree], expected_T: Tensor) -> str:
    policy.use_own_logits()
    return _fails(policy, trees, expected_T)


def _fails(policy: Policy, trees: Sequence[Tree], expected_T: Tensor) -> str:
    """How this way of running differs from the model alone; empty if it does not."""
    try:
        logits = policy.head(policy.features(trees)).double()
        logprobs_T = torch.log_softmax(logits, -1).gather(-1, targets_of(trees, policy.device)[:, None])[:, 0]
        return differs(logprobs_T, expected_T, policy.dtype)
    except UnsupportedError as error:
        return f"{error}"
    except Exception as error:  # whatever a strange model raises on the probe, the answer is to fall back
        return f"{type(error).__name__} on the probe: {error}".splitlines()[0][:200]


def differs(logprobs_T: Tensor, expected_T: Tensor, dtype: torch.dtype) -> str:
    """By how much two computations of the probe's logprobs differ; empty if they are equal up to rounding."""
    gaps_T = (logprobs_T.double() - expected_T.double()).abs()
    gap = float(gaps_T.mean() if dtype in (torch.float16, torch.bfloat16) else gaps_T.max())
    tolerance = TOLERANCE.get(dtype, 5e-5)
    return "" if gap <= tolerance else f"logprobs differ by {gap:.1e} on the probe (at most {tolerance:.0e} is equal)"


def _misheard(policy: Policy, trees: Sequence[Tree]) -> str:
    """What the numbers of the probe cannot show. A layer that attends twice needs two caches to decode. And a window
    longer than the probe changes nothing in it, so ask: did each layer that has one name it?"""
    settings = cast(Mapping[str, Any], policy.model.config.get_text_config().to_dict())
    window = settings.get("sliding_window")
    kinds = cast("Sequence[str]", settings.get("layer_types") or [])
    if strange := sorted(set(kinds) - {"full_attention", "sliding_attention"}):
        return f"it has layers of {', '.join(strange)}"
    expected = kinds.count("sliding_attention") if kinds else (settings.get("num_hidden_layers") if window else 0)
    packed = PackedTrees.of(trees, policy.device)
    layout = PackedLayout(packed)
    policy.run_backbone(input_ids=packed.ids, position_ids=packed.positions, use_cache=False, layout=layout)
    if max(Counter(layer for layer, _ in layout.heard).values()) > 1:
        return "it has layers that attend more than once to a token"
    heard: set[nn.Module] = {layer for layer, named in layout.heard if named is not None}
    return "" if len(heard) == expected else f"{len(heard)} of its {expected} sliding-window layers name their window"
