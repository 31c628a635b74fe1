"""The same decode step with a third of the operations, for small models of the commonest build.

On a CPU a small model's decode step is mostly the cost of calling operations at all: some seventy in a layer, each
with its own cold code. For a pre-norm decoder with RMSNorm, rotary positions and a gated SiLU (Llama, Mistral, Qwen2,
SmolLM and their like) a layer can be had in about twenty, because a norm's weight, the softmax scale, an adapter and
even the rotation by 90 degrees of the rotary embedding are linear and go into the matrices beforehand:

    q, k, v, rot(q), rot(k) = x / |x| @ W1        W1 = norm weight * (scale Wq, Wk, Wv, scale R Wq, R Wk)
    q = q cos + rot(q) sin,  k likewise
    x = x + attention(q, k, v) @ Wo
    gate, up = x / |x| @ W2
    x = x + (silu(gate) up) @ Wd

The matrices are copies, made anew for each batch, so this is for models whose copies are small. What a model is not
known to be, it may still look like: the choice of a decoder proves this one on the probe as any other.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groupwise.engines.decoders import TrunkAndBranchDecoder
from groupwise.engines.holding import Batch, Holding, own_bytes
from groupwise.models.attention import Terms
from groupwise.models.policy import Policy

LARGEST = 1 << 28
"""Bytes of weights up to which a copy is made. Torch's products of larger ones take as long as without it."""


class UnfitError(RuntimeError):
    """This model is built another way, or too large."""


class _Layer(NamedTuple):
    """One decoder layer's matrices, [in, out] each, and biases."""

    attention: nn.Module
    floors: tuple[Tensor, Tensor]
    inward: tuple[Tensor, Tensor | None]
    outward: tuple[Tensor, Tensor | None]
    gate_up: tuple[Tensor, Tensor | None]
    down: tuple[Tensor, Tensor | None]


class FusedDecoder(TrunkAndBranchDecoder):
    """Reads prompts through the model and decodes through its own copy of the weights.

    Example: `FusedDecoder(policy)` raises `UnfitError` for a model with layer norms.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self._base = cast(Any, policy.model.base_model)
        check_copyable(policy, LARGEST, policy.dtype)
        try:
            self.refresh()
        except (AttributeError, TypeError, RuntimeError) as error:
            raise UnfitError(f"not of the build that can be fused: {error}") from error

    def refresh(self) -> None:
        """See `Decoder`."""
        with torch.no_grad():
            self._layers = [_layer(layer) for layer in self._base.layers]
            norm = self._base.norm
            self._norm = (norm.weight * math.sqrt(len(norm.weight)), _floor(norm))

    def rest(self) -> None:
        """See `Decoder`."""
        self._layers = []

    def holds(self, batch: Batch) -> Holding:
        """The matrices beside keys and values."""
        pairs = [pair for each in self._layers for pair in (each.inward, each.outward, each.gate_up, each.down)]
        copies = own_bytes((x for pair in pairs for x in pair if x is not None), self._policy)
        return Holding(copies, super().holds(batch).keys_and_values)

    def step(self, tokens_B: Tensor) -> Tensor:
        """See `Decoder`."""
        self._cache.begin()
        x = self._base.embed_tokens(tokens_B)
        cos, sin = (angle[:, 0, None] for angle in self._base.rotary_emb(x, self._positions()[:, None]))
        for layer in self._layers:
            x = self._through(layer, x, cos, sin)
        weight, floor = self._norm
        return self._policy.head(_normed(x, floor) * weight)

    def _through(self, layer: _Layer, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        attention = cast(Any, layer.attention)
        dim = int(attention.head_dim)
        projected = _linear(_normed(x, layer.floors[0]), layer.inward).view(len(x), -1, dim)
        heads = layer.outward[0].shape[0] // dim
        kv_heads = (projected.shape[1] - 2 * heads) // 3
        rotated = heads + kv_heads
        q_k, v, turned = projected.split([rotated, kv_heads, rotated], 1)
        q_k = torch.addcmul(q_k * cos, turned, sin)[:, :, None]
        terms = Terms(1.0, self._windows[layer.attention], None)
        seen = self._cache.attend(layer.attention, q_k[:, :heads], q_k[:, heads:], v[:, :, None], terms)
        x = _linear(seen.view(len(x), -1), layer.outward, onto=x)
        gate, up = _linear(_normed(x, layer.floors[1]), layer.gate_up).chunk(2, -1)
        return _linear(F.silu(gate) * up, layer.down, onto=x)


def check_copyable(policy: Policy, largest: int, dtype: torch.dtype) -> None:
    """Refuse what a copy of the weights is no good for, and what a short probe would not show."""
    if sum(x.numel() * dtype.itemsize for x in policy.model.parameters()) > largest:
        raise UnfitError("the copy would be large")
    rope = policy.model.config.get_text_config().to_dict().get("rope_parameters") or {}
    if "llama_4_scaling_beta" in rope:
        raise UnfitError("it scales queries by their position, which a short probe does not show")


def _layer(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    if not is_silu(mlp.act_fn):
        raise UnfitError(f"its activation is {type(mlp.act_fn).__name__}")
    norms = layer.input_layernorm, layer.post_attention_layernorm
    dim, scale = int(attention.head_dim), float(attention.scaling)
    (q, q_bias), (k, k_bias), (v, v_bias) = (
        matrix_of(x) for x in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    q, q_bias = q * scale, None if q_bias is None else q_bias * scale
    inward = torch.cat([q, k, v, _turned(q, dim), _turned(k, dim)])
    biases = [q_bias, k_bias, v_bias, *(None if b is None else _turned(b, dim) for b in (q_bias, k_bias))]
    gate_up = [matrix_of(mlp.gate_proj), matrix_of(mlp.up_proj)]
    return _Layer(
        attention=attention,
        floors=(_floor(norms[0]), _floor(norms[1])),
        inward=_prepared(inward, biases, norms[0]),
        outward=_prepared(*_as_list(matrix_of(attention.o_proj))),
        gate_up=_prepared(torch.cat([w for w, _ in gate_up]), [b for _, b in gate_up], norms[1]),
        down=_prepared(*_as_list(matrix_of(mlp.down_proj))),
    )


def is_silu(activation: object) -> bool:
    """Whether it is x sigmoid(x)."""
    return isinstance(activation, nn.SiLU) or type(activation).__name__ == "SiLUActivation"


def matrix_of(module: Any, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor | None]:
    """Weight [out, in] and bias, with what active adapters add; in the precision of the weight, if none is named."""
    is_plain = isinstance(module, nn.Linear)
    base = module if is_plain else module.get_base_layer()
    dtype = dtype or base.weight.dtype
    bias = None if base.bias is None else base.bias.to(dtype)
    if is_plain:
        return base.weight.to(dtype), bias
    if dtype in (torch.float16, torch.bfloat16):
        raise UnfitError("in 16 bits a small adapter would be rounded away beside the weight that it is added to")
    weight = base.weight.to(dtype, copy=True)
    idle = module.merged or module.disable_adapters
    active = set[str]() if idle else set(module.active_adapters)
    if active & set(module.lora_magnitude_vector):
        raise UnfitError("the magnitudes of DoRA are not part of what an adapter adds")
    for name in active & set(module.lora_A):
        weight += module.get_delta_weight(name).to(weight.dtype)
    return weight, bias


def _as_list(matrix: tuple[Tensor, Tensor | None]) -> tuple[Tensor, list[Tensor | None]]:
    return matrix[0], [matrix[1]]


def _prepared(weight: Tensor, biases: list[Tensor | None], norm: Any = None) -> tuple[Tensor, Tensor | None]:
    """Matrix [in, out] behind a norm without weight, and bias."""
    if norm is not None:
        weight = weight * (norm.weight * math.sqrt(weight.shape[1]))
    given = [bias for bias in biases if bias is not None]
    if given and len(given) < len(biases):
        raise UnfitError("some of its projections have a bias and some have none")
    return weight.t().contiguous(), torch.cat(given) if given else None


def _turned(rows: Tensor, dim: int) -> Tensor:
    """What `rotate_half` of the rotary embedding makes of each head's outputs: (a, b) -> (-b, a)."""
    first, second = rows.unflatten(0, (-1, 2, dim // 2)).unbind(1)
    return torch.stack([-second, first], 1).flatten(0, 2)


def _floor(norm: Any) -> Tensor:
    weight = norm.weight
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return torch.tensor(math.sqrt(len(weight) * float(norm.variance_epsilon)), dtype=dtype, device=weight.device)


def _normed(x: Tensor, floor: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + eps), but for a factor sqrt(n) that is in the matrix behind it; `floor` is sqrt(n eps)."""
    if x.dtype == floor.dtype:
        return x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), floor)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=floor.dtype)
    return (x / torch.hypot(length, floor)).to(x.dtype)


def _linear(x: Tensor, matrix: tuple[Tensor, Tensor | None], onto: Tensor | None = None) -> Tensor:
    weight, bias = matrix
    if onto is None:
        return torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)
    return torch.addmm(onto if bias is None else onto + bias, x, weight)
