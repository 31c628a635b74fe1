"""A model in float64, all of it: to tell a difference in the maths from rounding.

Many architectures compute norms, softmaxes or rotations in float32 by name, whatever the precision of the weights, and
their results then agree to seven digits at most. While `in_double()` is on, every float32 (or 16-bit) that is asked for
by name is a float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from groupwise.config.sections import LoraSection, ModelSection
from groupwise.models.load import load_model, prepare_policy
from groupwise.models.policy import Policy

_SMALLER = (torch.float32, torch.bfloat16, torch.float16)
_CASTS: Mapping[Any, Any] = {
    Tensor.float: Tensor.double,
    Tensor.bfloat16: Tensor.double,
    Tensor.half: Tensor.double,
}


class in_double(TorchFunctionMode):  # noqa: N801  (a context manager)
    """Inside, float32, bfloat16 and float16 mean float64.

    Example: `with in_double(): policy = load_in_double(section)`
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace the casts and the names of precisions."""
        named = {name: _double(value) for name, value in (kwargs or {}).items()}
        return _CASTS.get(func, func)(*map(_double, args), **named)


def load_in_double(section: ModelSection, lora: LoraSection | None = None) -> Policy:
    """The policy with all its weights in float64. Call it, and the policy, inside of `in_double`."""
    model, tokenizer = load_model(section)
    model.double()
    torch.manual_seed(0)  # a new adapter begins with random numbers, on every rank the same
    return prepare_policy(model, tokenizer, section, lora)


def checkpoint_in_double(policy: Policy) -> None:
    """Gradient checkpointing that computes anew in float64, too: the mode is off while it handles `backward`."""

    def contexts() -> tuple[AbstractContextManager[None], in_double]:
        return nullcontext(), in_double()

    settings = {"use_reentrant": False, "context_fn": contexts}
    policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)


def _double(value: Any) -> Any:
    return torch.float64 if any(value is each for each in _SMALLER) else value
