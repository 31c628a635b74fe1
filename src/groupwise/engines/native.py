"""The decode step of `fused.py` as one call of compiled code, where this machine has a C compiler.

On a CPU a small model's step is mostly the cost of calling operations. In native.c it is one: norms, products, rotary
positions, attention over trunk and branch and the gated MLP of all layers, with keys and values in pages. It knows one
build, the commonest (Llama, Mistral, Qwen2, Qwen3, SmolLM and their like), and computes in fp32, also for weights of 16
bits; the choice of a decoder proves it on the probe as any other.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groupwise.engines.decoders import TrunkAndBranchDecoder
from groupwise.engines.fused import UnfitError, check_copyable, is_silu, matrix_of
from groupwise.engines.holding import Batch, Holding, own_bytes
from groupwise.engines.pages import PANEL, Pages, padded
from groupwise.models.allocator import give_freed_memory_back
from groupwise.models.compiled import library
from groupwise.models.head import Head
from groupwise.models.policy import Policy

SOURCE = Path(__file__).with_name("native.c")
LARGEST = 4 << 30
"""Bytes of weights up to which a copy is made. It is there while rollouts are sampled, when no gradients are."""
SMALL_HEAD = 16 << 20
"""Bytes."""
_LARGE = 64 << 20
_FIRST_POSITIONS = 256


class _Layer(ctypes.Structure):
    """See native.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("norm", "inward", "inward_bias", "query_norm", "key_norm")),
        *((name, ctypes.c_void_p) for name in ("outward", "outward_bias", "mlp_norm", "gate", "up")),
        *((name, ctypes.c_void_p) for name in ("gate_bias", "up_bias", "down", "down_bias")),
        ("window", ctypes.c_int64),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("layers", "dim", "heads", "kv_heads", "head_dim", "inner", "threads")),
        ("eps", ctypes.c_float),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("layer", "norm", "embedding", "cos", "sin", "head", "head_bias")),
        *((name, ctypes.c_int64) for name in ("known", "vocabulary")),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "slots", "trunk_stride", "branch_stride", "last_position")),
        *((name, ctypes.c_void_p) for name in ("tokens", "first_row", "trunk_lengths", "branch_lengths")),
        *((name, ctypes.c_void_p) for name in ("trunk_pages", "branch_pages", "slot_of", "work")),
        *((name, ctypes.c_void_p) for name in ("features", "logits")),
    )


class NativeDecoder(TrunkAndBranchDecoder):
    """Reads prompts through the model and decodes through native.c.

    Example: `NativeDecoder(policy)` raises `UnfitError` without a compiler, or for a model with layer norms.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        native = library(SOURCE)
        if native is None:
            raise UnfitError("there is no compiled library")
        self._native = native
        self._native.work_floats.restype = self._native.step.restype = ctypes.c_int64
        if policy.dtype not in (torch.float32, torch.float16, torch.bfloat16) or policy.device.type != "cpu":
            raise UnfitError("compiled code is for fp32 and 16 bits on a CPU")
        check_copyable(policy, LARGEST, torch.float32)
        self._base = cast(Any, policy.model.base_model)
        try:
            self._measure()
            self.refresh()
        except (AttributeError, TypeError, RuntimeError) as error:
            raise UnfitError(f"not of the build that native.c knows: {error}") from error

    def _measure(self) -> None:
        """The sizes that all layers share."""
        layers = list(self._base.layers)
        first, embedding = layers[0], self._base.embed_tokens
        if type(embedding) is not nn.Embedding:
            raise UnfitError("its embedding is not a plain table")
        norms = [m for layer in layers for m in layer.modules() if "variance_epsilon" in vars(m)] + [self._base.norm]
        scales, epsilons = {float(x.self_attn.scaling) for x in layers}, {float(n.variance_epsilon) for n in norms}
        if len(scales | epsilons) != 2:
            raise UnfitError("its layers differ in scale or eps")
        dim = int(first.self_attn.head_dim)
        self._model = _Model(
            layers=len(layers),
            dim=embedding.weight.shape[1],
            heads=_exact(first.self_attn.q_proj)[0].shape[0] // dim,
            kv_heads=_exact(first.self_attn.k_proj)[0].shape[0] // dim,
            head_dim=dim,
            inner=_exact(first.mlp.gate_proj)[0].shape[0],
            eps=epsilons.pop(),
            scale=scales.pop(),
            known=len(embedding.weight),
        )
        self._pages = Pages(len(layers), self._model.kv_heads, dim)
        self._cos = self._sin = _floats(0)
        self._know_positions(_FIRST_POSITIONS)

    def refresh(self) -> None:
        """See `Decoder`."""
        self._held: list[Tensor] = []  # what native.c points at
        with torch.no_grad():
            layers = [self._layer(layer) for layer in self._base.layers]
            self._model.norm = self._at(self._base.norm.weight)
            self._model.embedding = self._at(self._base.embed_tokens.weight)
            self._has_head = self._take_head()
        self._layers = (_Layer * len(layers))(*layers)
        self._model.layer = ctypes.addressof(self._layers)
        self._model.threads = torch.get_num_threads()
        self._work = self._features = _floats(0)
        self._step = _Step(last_position=self._last_position)

    def rest(self) -> None:
        """See `Decoder`."""
        held = sum(x.numel() * x.element_size() for x in self._held)
        self._held = []
        self._work = self._features = _floats(0)
        if held > _LARGE:
            give_freed_memory_back()

    def holds(self, batch: Batch) -> Holding:
        """The matrices in panels, and keys and values in whole pages, all in fp32."""
        pages = batch.prompts * _pages(batch.prompt) + batch.rows * _pages(batch.completion)
        return Holding(own_bytes(self._held, self._policy), pages * self._pages.bytes)

    def admit(self, prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> Tensor:
        """See `Decoder`."""
        trunks, logits = self._read(prompts)
        for layer, module in zip(self._layers, self._base.layers, strict=True):
            layer.window = self._windows[module.self_attn] or 0
        self._pages.admit([trunks[module.self_attn] for module in self._base.layers], rows)
        self._point()
        return logits.repeat_interleave(torch.tensor(rows), 0)

    def step(self, tokens_B: Tensor) -> Tensor:
        """See `Decoder`."""
        pages = self._pages
        if pages.begin():
            self._point()
        tokens_B = tokens_B.contiguous()
        logits = _floats(len(pages), padded(self._model.vocabulary)) if self._has_head else None
        self._step.tokens = tokens_B.data_ptr()
        self._step.logits = None if logits is None else logits.data_ptr()
        given = ctypes.byref(self._model), ctypes.byref(self._step), ctypes.c_int64(pages.tokens)
        if self._native.step(*given):
            raise IndexError(f"token {int(tokens_B.max())}: there are embeddings for {self._model.known} tokens only")
        pages.end()
        return (
            self._policy.head(self._features.to(self._policy.dtype))
            if logits is None
            else logits[:, : self._model.vocabulary]
        )

    def keep(self, index: Sequence[int]) -> None:
        """See `Decoder`."""
        self._pages.keep(index)
        self._point()

    def _point(self) -> None:
        """Tell native.c where everything is now."""
        pages, step, model = self._pages, self._step, self._model
        longest = int(pages.trunk_lengths.max(initial=0) + pages.branch_lengths.max(initial=0)) + PANEL
        self._know_positions(min(longest, self._last_position + 1))
        wanted = self._native.work_floats(ctypes.byref(model), ctypes.c_int64(len(pages)), ctypes.c_int64(pages.tokens))
        if wanted > len(self._work):
            self._work = _floats(wanted)
        self._features = _floats(len(pages), model.dim)
        step.rows, step.slots = len(pages), len(pages.trunk_lengths)
        step.trunk_stride, step.branch_stride = pages.trunk_pages.shape[1], pages.branch_pages.shape[1]
        step.work, step.features = self._work.data_ptr(), self._features.data_ptr()
        for name in ("first_row", "trunk_lengths", "branch_lengths", "trunk_pages", "branch_pages", "slot_of"):
            setattr(step, name, cast("np.ndarray[Any, Any]", vars(pages)[name]).ctypes.data)

    def _know_positions(self, count: int) -> None:
        """Angles of so many positions at least."""
        if count <= len(self._cos):
            return
        count = min(max(count, 2 * len(self._cos)), self._last_position + 1)
        like = self._base.embed_tokens.weight[:1, None]
        cos, sin = self._base.rotary_emb(like, torch.arange(count)[None])
        self._cos, self._sin = (x[0].float().contiguous() for x in (cos, sin))
        if self._cos.shape != (count, self._model.head_dim):
            raise UnfitError("it rotates a part of each head only")
        self._model.cos, self._model.sin = self._cos.data_ptr(), self._sin.data_ptr()

    def _take_head(self) -> bool:
        """Whether native.c computes the logits, too: a small matrix is over before torch's threads have woken up."""
        self._model.head = None
        head = self._policy.head
        if not isinstance(head, Head) or head.scale != 1.0 or head.cap is not None:
            return False
        projection = head.projection
        if type(projection) is not nn.Linear or projection.weight.numel() * 4 > SMALL_HEAD:
            return False
        self._model.vocabulary = projection.weight.shape[0]
        self._set(self._model, "head", (projection.weight, projection.bias), self._model.vocabulary, self._model.dim)
        return True

    def _layer(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        if not is_silu(mlp.act_fn):
            raise UnfitError(f"its activation is {type(mlp.act_fn).__name__}")
        inward = [_exact(x) for x in (attention.q_proj, attention.k_proj, attention.v_proj)]
        if len({bias is None for _, bias in inward}) > 1:
            raise UnfitError("some of its projections have a bias and some have none")
        biases = [bias for _, bias in inward if bias is not None]
        own_norms = dict(cast(nn.Module, attention).named_children())
        query_norm, key_norm = (cast(Any, own_norms.get(name)) for name in ("q_norm", "k_norm"))
        made = _Layer(
            norm=self._at(layer.input_layernorm.weight), mlp_norm=self._at(layer.post_attention_layernorm.weight)
        )
        for name, norm in (("query_norm", query_norm), ("key_norm", key_norm)):
            if norm is not None and norm.weight.shape != (self._model.head_dim,):
                raise UnfitError("it normalises queries and keys over all heads together")
            setattr(made, name, None if norm is None else self._at(norm.weight))
        sizes = self._model
        dim, attended, inner = sizes.dim, sizes.heads * sizes.head_dim, sizes.inner
        projected = torch.cat([weight for weight, _ in inward]), torch.cat(biases) if biases else None
        self._set(made, "inward", projected, attended + 2 * sizes.kv_heads * sizes.head_dim, dim)
        self._set(made, "outward", _exact(attention.o_proj), dim, attended)
        self._set(made, "gate", _exact(mlp.gate_proj), inner, dim)
        self._set(made, "up", _exact(mlp.up_proj), inner, dim)
        self._set(made, "down", _exact(mlp.down_proj), dim, inner)
        return made

    def _set(self, into: _Layer | _Model, name: str, matrix: tuple[Tensor, Tensor | None], out: int, wide: int) -> None:
        """A matrix [out, wide] as panels [out / PANEL, wide, PANEL], and its bias."""
        weight, bias = matrix
        if weight.shape != (out, wide):  # where layers of a model were cut down, native.c would read past their end
            raise UnfitError(f"its layers differ in size: {tuple(weight.shape)} where another has {(out, wide)}")
        weight = F.pad(weight, (0, 0, 0, padded(out) - out)).unflatten(0, (-1, PANEL)).transpose(1, 2)
        setattr(into, name, self._at(weight.contiguous()))
        setattr(into, f"{name}_bias", None if bias is None else self._at(F.pad(bias, (0, padded(out) - out))))

    def _at(self, tensor: Tensor) -> int:
        """Its address. It is held as long as it is pointed at."""
        tensor = tensor.detach().float().contiguous()
        self._held.append(tensor)
        return tensor.data_ptr()


def _exact(module: Any) -> tuple[Tensor, Tensor | None]:
    """Weight and bias in fp32: an adapter of 16 bits is not rounded away in the sum."""
    return matrix_of(module, torch.float32)


def _pages(tokens: int) -> int:
    return padded(tokens) // PANEL


def _floats(*shape: int) -> Tensor:
    """Memory for native.c: fp32 on the CPU, whatever torch's defaults are."""
    return torch.empty(*shape, dtype=torch.float32, device="cpu")
