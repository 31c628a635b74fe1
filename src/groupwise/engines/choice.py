"""Which decoder samples: the fastest one that gives the learner's logprobs, proven on a probe before the first token.

The self-check at load looks at whole sequences, as the learner reads them. Sampling goes token by token through a cache
of keys, values or states, and models differ in that too: some hand no cache out, some cannot go on from it with other
rows. So known tokens are fed through the decoder, and it must give the logprobs that the learner gives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from groupwise.engines.decoders import Decoder, PlainDecoder, RereadingDecoder, TrunkAndBranchDecoder
from groupwise.engines.fused import FusedDecoder, UnfitError
from groupwise.engines.graphed import GraphedDecoder
from groupwise.engines.native import NativeDecoder
from groupwise.models.policy import Policy
from groupwise.models.selfcheck import differs, probe
from groupwise.models.transfer import on_device
from groupwise.models.trees import Tree

log = logging.getLogger(__name__)

MakeDecoder: TypeAlias = Callable[[Policy], Decoder]


def choose_decoder(policy: Policy) -> MakeDecoder:
    """The fastest that is proven. That there is nothing but the one without a cache is said in one line."""
    trunk_and_branch: list[MakeDecoder] = [NativeDecoder, GraphedDecoder, FusedDecoder, TrunkAndBranchDecoder]
    with_cache = trunk_and_branch if policy.attention == "trunk_and_branch" else [PlainDecoder]
    why = ""
    for make in with_cache:
        if not (why := _fails(make, policy)):
            return make
        log.debug("%s: no %s: %s", type(policy.model).__name__, make, why)
    log.warning("%s reads every completion anew for each token, which is slow: %s", type(policy.model).__name__, why)
    return RereadingDecoder


def _fails(make: MakeDecoder, policy: Policy) -> str:
    """How the decoder differs from the learner; empty if it does not."""
    trees = probe(policy)
    with torch.inference_mode():
        expected_T, _ = policy.logprobs(trees)
        try:
            decoded_T = torch.cat([_tried(make(policy), tree) for tree in trees])
        except UnfitError as error:
            return str(error)
        except Exception as error:  # whatever a strange model raises on the probe, the answer is to fall back
            return f"its cache fails on the probe, {type(error).__name__}: {error}".splitlines()[0][:200]
    why = differs(decoded_T, expected_T, policy.dtype)
    return f"through its cache {why}" if why else ""


def _tried(decoder: Decoder, tree: Tree) -> Tensor:
    """See `_decoded`. What the decoder holds goes with it, not with whatever it hangs together with."""
    try:
        return _decoded(decoder, tree)
    finally:
        decoder.rest()


def _decoded(decoder: Decoder, tree: Tree) -> Tensor:
    """The logprobs of a tree's completion tokens, in order, from feeding its branches as rows."""
    rows: Sequence[int] = range(len(tree.branches))
    logits = decoder.admit([tree.trunk], [len(rows)])
    logprobs: dict[tuple[int, int], Tensor] = {}
    for place in range(max(map(len, tree.branches))):
        tokens_B = on_device([tree.branches[row][place] for row in rows], logits.device)
        chosen_B = torch.log_softmax(logits.double(), -1).gather(-1, tokens_B[:, None])[:, 0]
        logprobs |= {(row, place): logprob for row, logprob in zip(rows, chosen_B, strict=True)}
        going = [i for i, row in enumerate(rows) if len(tree.branches[row]) > place + 1]
        if not going:
            break
        decoder.keep(going)
        rows = [rows[i] for i in going]
        logits = decoder.step(tokens_B[on_device(going, logits.device)])
    return torch.stack([logprobs[key] for key in sorted(logprobs)])
