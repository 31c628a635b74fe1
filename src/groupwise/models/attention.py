"""The one attention function that groupwise gives to a model of transformers, and what it computes.

transformers lets a model run with any registered attention function and hands the model's keyword arguments on to it.
Ours takes a `layout`, an object that knows which tokens of the row belong to which trunk and branch, and leaves the
work to it. No mask function is registered beside it, so transformers builds no mask of its own.

The layouts know nothing of architectures: a sliding window, a soft cap or a scale arrive with each call. What is not
understood is refused with `UnsupportedError`, and the self-check at load turns that into the plain fallback.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

NAME = "groupwise_trunk_and_branch"

HARMLESS = re.compile(
    "cache_position|dropout|head_mask|is_causal|logits_to_keep|output_.*|past_key_values|position_embeddings"
    "|position_ids|return_dict|use_cache"
)
"""What transformers hands on that changes nothing in a causal self-attention without a cache of its own."""


class UnsupportedError(RuntimeError):
    """This model's attention asks for something that trunk and branch does not do."""


class Terms(NamedTuple):
    """What a layer wants of its attention, beside queries, keys and values."""

    scaling: float
    window: int | None
    softcap: float | None


class Layout(Protocol):
    """Knows which token may see which."""

    def attend(self, layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, terms: Terms) -> Tensor:
        """`query` [rows, heads, tokens, dim], `key` and `value` with the layer's own (fewer) heads ->
        [rows, tokens, heads, dim]."""
        ...


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **asked: Any,
) -> tuple[Tensor, None]:
    """The function that is registered. transformers gives everything beyond the mask by keyword."""
    layout = cast("Layout | None", asked.pop("layout", None))
    if layout is None:
        raise UnsupportedError("the model does not hand its keyword arguments on to its attention")
    if attention_mask is not None:
        raise UnsupportedError("it makes an attention mask of its own")
    scaling = asked.pop("scaling", None)
    terms = Terms(
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=asked.pop("sliding_window", None),
        softcap=asked.pop("softcap", None),
    )
    if strange := sorted(name for name, x in asked.items() if x is not None and not HARMLESS.fullmatch(name)):
        raise UnsupportedError(f"its attention takes {', '.join(strange)}, which trunk and branch does not know")
    return layout.attend(module, query, key, value, terms), None


AttentionInterface.register(NAME, _attention)  # pyright: ignore[reportUnknownMemberType]


def attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, terms: Terms) -> Tensor:
    """Attention of `query` [b, heads, q, dim] on `key`, `value` [b, kv heads, k, dim] -> [b, heads, q, dim].

    `visible` is a boolean mask that broadcasts to [b, heads, q, k]; `None` means causal, with as many
    queries as keys.
    """
    if terms.softcap is None:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=visible, is_causal=visible is None, scale=terms.scaling, enable_gqa=True
        )
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scores = torch.matmul(query, key.transpose(-1, -2)) * terms.scaling
    scores = torch.tanh(scores / terms.softcap) * terms.softcap
    if visible is None:
        visible = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    scores = scores.masked_fill(~visible, float("-inf"))
    return torch.matmul(softmax(scores).to(value.dtype), value)


def softmax(scores: Tensor) -> Tensor:
    """Over the last axis, in fp32 or better."""
    return torch.softmax(scores, -1, dtype=torch.promote_types(scores.dtype, torch.float32))


# What transformers knows about a model and keeps behind an underscore; asked for here and nowhere else.


def attention_name(model: PreTrainedModel) -> str:
    """The attention function that the model runs with."""
    return str(model.config._attn_implementation)  # pyright: ignore[reportPrivateUsage]


def use_attention(model: PreTrainedModel, name: str) -> None:
    """Let the model run with that attention function from now on."""
    model.config._attn_implementation = name  # pyright: ignore[reportPrivateUsage]


_LOOK = "warn_if_padding_and_no_attention_mask"


@contextmanager
def unpadded(models: Sequence[PreTrainedModel]) -> Generator[None]:
    """Inside, these models (one and those in it) do not look for padding where they are given no mask, to warn of it: a
    look at values, for which a GPU has to be waited for at every token."""
    outermost = [model for model in models if _LOOK not in vars(model)]
    for model in outermost:
        vars(model)[_LOOK] = _say_nothing
    try:
        yield
    finally:
        for model in outermost:
            del vars(model)[_LOOK]


def _say_nothing(*_: Any) -> None:
    """There is no padding."""


def attention_is_replaceable(model: PreTrainedModel) -> bool:
    """Whether the model looks its attention function up by name; older architectures have theirs built in."""
    return bool(model._can_set_attn_implementation())  # pyright: ignore[reportPrivateUsage]


def carries_state(model: PreTrainedModel) -> bool:
    """Whether tokens are also connected by a recurrent state (Mamba and its hybrids), which packing would mix up."""
    return bool(model._is_stateful)  # pyright: ignore[reportPrivateUsage]
