"""What a decoder holds while it samples: each says so itself, so that nobody above needs to know which one it is.

decoder.holds(Batch(prompts=8, prompt=200, rows=64, completion=512))     Holding(weights=..., keys_and_values=...)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from groupwise.models.policy import Policy


@dataclass(frozen=True, slots=True)
class Batch:
    """So many prompts of so many tokens, and so many completions in all of them, each of so many tokens."""

    prompts: int
    prompt: int
    rows: int
    completion: int


@dataclass(frozen=True, slots=True)
class Holding:
    """Bytes: the decoder's own copy of the weights, as it is now (nothing while it rests), and keys and values once
    every completion is full."""

    weights: int
    keys_and_values: int
    stays: bool = False
    """Whether the room for keys and values is kept while nobody samples."""


def bytes_per_token(policy: Policy) -> int:
    """Keys and values of a token in all layers, in the precision of the model."""
    config = cast("Mapping[str, Any]", policy.model.config.get_text_config().to_dict())
    heads = int(config.get("num_attention_heads") or config.get("n_head") or 1)
    layers = int(config.get("num_hidden_layers") or config.get("n_layer") or 1)
    width = int(config.get("hidden_size") or config.get("n_embd") or 1)
    dim, kv_heads = int(config.get("head_dim") or width // heads), int(config.get("num_key_value_heads") or heads)
    return 2 * layers * kv_heads * dim * policy.model.dtype.itemsize


def own_bytes(tensors: Iterable[Tensor], policy: Policy) -> int:
    """Of those tensors that are no view of the policy's parameters: what is in the right precision is not copied."""
    theirs = {parameter.untyped_storage().data_ptr() for parameter in policy.model.parameters()}
    own = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    return sum(size for address, size in own.items() if address not in theirs)
