"""Rotary positions in one pass where transformers takes seven, lent to the files that a model is written in.

Each architecture's file has an `apply_rotary_pos_emb` of its own, of a few kinds. One that is *proven* equal to
`parts.rotated`, in output and gradients, is stood in for while a policy is at work, and given back afterwards.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, ClassVar, TypeAlias, cast

import torch
from torch import Tensor, nn

from groupwise.models import parts

NAME = "apply_rotary_pos_emb"
Rotate: TypeAlias = Callable[..., tuple[Tensor, Tensor]]
"""query and key [1, heads, tokens, dim], cos and sin [1, tokens, dim] -> both of them, turned."""


@dataclass(slots=True)
class _Loan:
    """One file's function and how many are at work with the faster one: policy and reference share their file."""

    file: dict[str, Any]
    own: Rotate
    fast: Rotate
    borrowers: int = 0
    lock: Lock = field(default_factory=Lock)

    everywhere: ClassVar[dict[str, _Loan | None]] = {}
    proving: ClassVar[Lock] = Lock()

    @classmethod
    def of(cls, module: str) -> _Loan | None:
        """That of a Python module, proven when it is first asked for; `None` if it has none that is equal."""
        with cls.proving:  # two loans of one file would give each other's back
            if module not in cls.everywhere:
                file = vars(sys.modules[module])
                own = cast("Rotate | None", file.get(NAME))
                fast = None if own is None else _fast(own)
                equal = own is not None and fast is not None and _is_the_same(own, fast)
                cls.everywhere[module] = cls(file, own, fast) if equal and own and fast else None
            return cls.everywhere[module]

    @contextmanager
    def taken(self) -> Generator[None]:
        with self.lock:
            self.borrowers += 1
            self.file[NAME] = self.fast
        try:
            yield
        finally:
            with self.lock:
                self.borrowers -= 1
                if not self.borrowers:
                    self.file[NAME] = self.own


class Rotary:
    """What the files of this model can borrow.

    Example: `with Rotary(model).at_work(): model(tokens)`
    """

    def __init__(self, model: nn.Module) -> None:
        loans = (_Loan.of(module) for module in sorted({type(part).__module__ for part in model.modules()}))
        self._loans = [loan for loan in loans if loan is not None]

    @contextmanager
    def at_work(self) -> Generator[None]:
        """Inside, the faster functions stand in. May be nested, in any number of threads."""
        with ExitStack() as stack:
            for loan in self._loans:
                stack.enter_context(loan.taken())
            yield


def _fast(own: Rotate) -> Rotate:
    def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *more: Any, **named: Any) -> tuple[Tensor, Tensor]:
        plain = not more and not named and query.ndim == key.ndim == 4 and query.shape[0] == key.shape[0] == 1
        angles = (1, query.shape[-2], query.shape[-1])
        if not plain or cos.shape != angles or sin.shape != angles or not parts.fits(query, key, cos, sin):
            return own(query, key, cos, sin, *more, **named)
        return parts.rotated(query, cos, sin), parts.rotated(key, cos, sin)

    return rotate


def _is_the_same(own: Rotate, fast: Rotate) -> bool:
    generator = torch.Generator().manual_seed(13)
    query, key = torch.randn(1, 4, 5, 8, generator=generator), torch.randn(1, 2, 5, 8, generator=generator)
    # Angles of a half twice, as every model has them; the two halves differ, so that an order within shows.
    angle = torch.randn(1, 5, 4, generator=generator).repeat(1, 1, 2)
    try:
        if not parts.fits(query):
            return False
        results = [_with_gradients(rotate, query, key, angle.cos(), angle.sin()) for rotate in (own, fast)]
        return all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*results, strict=True))
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return False


def _with_gradients(rotate: Rotate, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> list[Tensor]:
    with torch.inference_mode(False), torch.enable_grad():
        inputs = [query.clone().requires_grad_(), key.clone().requires_grad_()]
        turned = rotate(*inputs, cos, sin)
        pulls = [torch.linspace(-1, 1, x.numel()).view(x.shape) for x in turned]
        return [*(x.detach() for x in turned), *torch.autograd.grad(turned, inputs, pulls)]
