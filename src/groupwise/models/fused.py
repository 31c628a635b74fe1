"""Parts of a model computed in fewer passes: RMSNorm, the gated product of an MLP, and rotary positions.

Written out in single operations, they keep every intermediate tensor for the backward pass and read it again there:
beside its matrix products, half of a small model's time. Here each is one function that keeps its inputs and works in
place, in compiled code where there is some (`groupwise.models.parts`). Nothing goes by the name of an architecture: a
part is replaced if it looks like one of these and is *proven* to give the same output and gradients. And only while the
policy is at work; between calls the model is untouched. Embeddings are among them for their gradient (`tables`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from groupwise.models import parts
from groupwise.models.products import linear_of
from groupwise.models.rotary import Rotary
from groupwise.models.tables import rows_of

CLOSE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 0.01, torch.bfloat16: 0.05}
"""Difference that is only rounding, relative to the largest number."""

Forward = Callable[[Tensor], Tensor]


class Fused:
    """The parts of a model that have a faster forward, proven once for each kind of part.

    Example: `with Fused(model).at_work(): loss_of(model).backward()`
    """

    def __init__(self, model: nn.Module) -> None:
        self._forwards: list[tuple[dict[str, Any], Forward]] = []
        proven: dict[object, int | None] = {}
        head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
        for module in model.modules():
            if "forward" in vars(module):
                continue
            plain = rows_of(module) or linear_of(module)
            # The head has a way of its own (`tiles`), as long as nobody has changed it.
            if plain is not None and module is not head:
                self._forwards.append((vars(module), plain))
            candidates = list(_candidates(module))
            kind = (type(module), *(type(child) for child in module.children()), *_shapes(module))
            if candidates and kind not in proven:
                proven[kind] = next((i for i, fast in enumerate(candidates) if _is_the_same(module, fast)), None)
            if candidates and (which := proven[kind]) is not None:
                self._forwards.append((vars(module), candidates[which]))
        self._rotary = Rotary(model)
        self._depth = 0

    @contextmanager
    def at_work(self) -> Generator[None]:
        """Inside, the fast forwards stand in for the modules' own. May be nested."""
        if self._depth == 0:
            for own, forward in self._forwards:
                own["forward"] = forward
        self._depth += 1
        try:
            with self._rotary.at_work():
                yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                for own, _ in self._forwards:
                    own.pop("forward", None)


def _shapes(module: nn.Module) -> Iterable[object]:
    return (parameter.shape for parameter in module.parameters(recurse=False))


def _candidates(module: nn.Module) -> Iterable[Forward]:
    """What the module might be, going by what it owns."""
    weights = dict(module.named_parameters(recurse=False))
    children = dict(module.named_children())
    epsilon = next(
        (vars(module)[name] for name in ("variance_epsilon", "eps", "epsilon") if name in vars(module)), None
    )
    if set(weights) == {"weight"} and weights["weight"].ndim == 1 and not children and isinstance(epsilon, float):
        yield _rms_norm(module, epsilon, add=0.0)
        yield _rms_norm(module, epsilon, add=1.0)
    if {"gate_proj", "up_proj", "down_proj", "act_fn"} == set(children) and not weights:
        yield _gated_mlp(module)


def _is_the_same(module: nn.Module, fast: Forward) -> bool:
    """Whether both forwards agree on random input, in output and gradients."""
    generator = torch.Generator().manual_seed(11)
    try:
        parameter = next(module.parameters())
        # An offset shows a mean that is taken off; small numbers show an epsilon.
        for scale in (1.5, 1e-3):
            x = scale * (torch.randn(5, parameter.shape[-1], generator=generator) + 0.3)
            x, pull = x.to(parameter.device, parameter.dtype), torch.randn(x.shape, generator=generator).to(x.device)
            one, other = (_with_gradients(forward, module, x, pull) for forward in (module.forward, fast))
            if not all(_close(a, b) for a, b in zip(one, other, strict=True)):
                return False
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return False
    return True


def _with_gradients(forward: Forward, module: nn.Module, x: Tensor, pull: Tensor) -> list[Tensor]:
    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone().requires_grad_()
        out = forward(x)
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return [out.detach(), *torch.autograd.grad(out, [x, *trained], pull.to(out.dtype).expand_as(out))]


def _close(one: Tensor, other: Tensor) -> bool:
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return float((one - other).abs().max()) <= CLOSE[one.dtype] * float(one.abs().max())


def _rms_norm(module: nn.Module, epsilon: float, *, add: float) -> Forward:
    """x / sqrt(mean(x^2) + epsilon) * (weight + add), arXiv 1910.07467."""

    def forward(x: Tensor) -> Tensor:
        weight = cast(Tensor, module.weight)
        if x.is_cuda:
            return F.rms_norm(x, weight.shape, weight + add if add else weight, epsilon)
        if parts.fits(x, weight):
            return parts.rms_norm(x, weight, epsilon, add)
        return cast(Tensor, _RmsNorm.apply(x, weight, epsilon, add))

    return forward


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, add: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        exact = rows.to(torch.promote_types(rows.dtype, torch.float32))
        norms = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        inverse = norms.square_().mul_(1 / x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(rows, weight, inverse)
        ctx.add = add
        out = (exact * inverse).mul_(weight + add if add else weight)
        return out.to(torch.promote_types(x.dtype, weight.dtype)).view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # with n = 1 / sqrt(mean(x^2) + epsilon):    dx = n (g w - x n^2 mean(g w x)),    dw = sum over rows of g x n
        rows, weight, inverse = cast(tuple[Tensor, Tensor, Tensor], ctx.saved_tensors)
        exact, grad = rows.to(inverse.dtype), grads[0].reshape(rows.shape).to(inverse.dtype)
        scale = (weight + ctx.add if ctx.add else weight).to(inverse.dtype)
        product = grad * exact
        pull = torch.mv(product, scale)[:, None].mul_(inverse).mul_(inverse).mul_(-1 / rows.shape[-1])
        dw = torch.mv(product.t(), inverse[:, 0]).to(weight.dtype) if ctx.needs_input_grad[1] else None
        dx = torch.mul(grad, scale, out=product).addcmul_(exact, pull).mul_(inverse)
        return dx.to(rows.dtype).view(grads[0].shape), dw, None, None


def _gated_mlp(module: nn.Module) -> Forward:
    """down(silu(gate(x)) * up(x)), arXiv 2002.05202."""

    def forward(x: Tensor) -> Tensor:
        gate, up, down = (cast(nn.Module, getattr(module, f"{name}_proj")) for name in ("gate", "up", "down"))
        gates, ups = gate(x), up(x)
        return down(parts.gated(gates, ups) if parts.fits(gates, ups) else _Gated.apply(gates, ups))

    return forward


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gate, up = cast(tuple[Tensor, Tensor], ctx.saved_tensors)
        through = grads[0] * up
        torch.ops.aten.silu_backward.grad_input(through, gate, grad_input=through)
        return through, F.silu(gate).mul_(grads[0])
