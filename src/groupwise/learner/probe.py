"""A small batch that entries are tried on: whether one works, and whether rollouts of advantage 0 matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from groupwise.errors import RecipeError
from groupwise.learner.own import shown
from groupwise.maths.tables import Bound
from groupwise.maths.whole import Whole

_ROLLOUT_T = torch.tensor([0, 1, 1, 2, 2, 2])
_OLD_T = torch.tensor([-0.5, -1.0, -2.0, -0.1, -3.0, -1.5], dtype=torch.float64)


def probe(log_ratios: Sequence[float] = (0.0, 0.1, -0.2, 0.05, 0.4, -0.3), advantage: float = 1.0) -> dict[str, Any]:
    """All data that entries can ask for: three rollouts of 1, 2 and 3 tokens in two groups. `logprobs_T` wants a
    gradient."""
    logprobs_T = (_OLD_T + torch.tensor(log_ratios, dtype=torch.float64)).requires_grad_()
    advantages_T = advantage * torch.tensor([1.0, -0.5, -0.5, -0.5, -0.5, -0.5], dtype=torch.float64)
    entropies_T = torch.tensor([0.3, 1.0, 2.0, 0.0, 0.7, 1.1], dtype=torch.float64)
    rewards_QG = [[1.0, 0.0, None, 0.5], [1.0, 1.0], [None, None], [0.2], [0.0, 0.0]]
    return {
        "logprobs_T": logprobs_T,
        "old_logprobs_T": _OLD_T,
        "sampled_logprobs_T": _OLD_T + 0.01,
        "reference_logprobs_T": _OLD_T - 0.1,
        "log_ratio_T": logprobs_T - _OLD_T,
        "mismatch_T": torch.full_like(_OLD_T, -0.01),
        "correction_T": torch.ones_like(_OLD_T),
        "advantages_T": advantages_T,
        "entropies_T": entropies_T,
        "rollout_T": _ROLLOUT_T,
        "update": Whole(
            logprobs_T.detach(), _OLD_T, advantages_T, entropies_T, torch.linspace(0, 0.9, 6).double(), torch.arange(6)
        ),
        "lengths_R": torch.tensor([1, 2, 3]),
        "group_R": torch.tensor([0, 1, 1]),
        "rewards_QG": rewards_QG,
        "lengths_QG": [[3 * i for i in range(len(group))] for group in rewards_QG],
        "parts_QG": [[{"a": reward, "b": None} for reward in group] for group in rewards_QG],
        "reward_weights": {"a": 1.0, "b": 0.5},
        "coefficient": 0.1,
        "observed": 0.2,
        "rollouts": 3,
        "wanted": 3,
        "rounds": 1,
    }


def is_silent(surrogate: Bound[Tensor]) -> bool:
    """Whether a rollout of advantage 0 has neither loss nor gradient, wherever the policy has gone."""
    with torch.inference_mode(False), torch.enable_grad():
        return not surrogate.takes("update") and all(_is_silent_at(surrogate, size) for size in (0.0, 0.3, 3.0, 30.0))


def _is_silent_at(surrogate: Bound[Tensor], size: float) -> bool:
    """The same, at log-ratios of that size."""
    data = probe([size, -size, size, size, -size, size], advantage=0.0)
    loss_T = surrogate(**data)
    return bool(loss_T.abs().sum() == 0) and not (loss_T.requires_grad and _gradient(loss_T, data).abs().sum() != 0)


def check(bound: Bound[Any]) -> None:
    """Raise a `RecipeError` unless the entry gives what it should on a small batch."""
    # Whoever builds a trainer may have switched gradients off around it.
    with torch.inference_mode(False), torch.enable_grad():
        _check(bound)


def _check(bound: Bound[Any]) -> None:
    data, untouched = probe(), probe()
    settings = ", ".join(f"{name} = {value!r}" for name, value in bound.settings.items())
    what = f'{bound.kind} = "{bound.name}"{f" with {settings}" if settings else ""}'
    try:
        given = bound(**data)
        complaint = _complaint(bound.kind, given, data)
    except RecipeError:
        raise
    except (Exception, SystemExit) as error:
        raise RecipeError(f"{what} raised {shown(error)}, on a small batch before the run") from error
    changed = next((name for name in bound.data if not _same(data[name], untouched[name])), None)
    if changed is not None:
        complaint = f"changes {changed}, which others look at after it: compute something new instead"
    if complaint:
        raise RecipeError(f"{what} {complaint}, on a small batch before the run")


def _complaint(kind: str, given: object, data: dict[str, Any]) -> str | None:
    if kind in ("advantage", "length_penalty"):
        return _about_lists(given, data["rewards_QG"])
    if kind == "selection":
        return _about_choice(given, len(data["rewards_QG"]))
    if kind.endswith("control"):
        pair = cast("Sequence[object]", given) if isinstance(given, tuple) else ()
        return None if len(pair) == 2 and all(map(_is_finite, pair)) else "did not give two finite numbers"
    size = 3 if kind == "weights" else 6
    if not isinstance(given, Tensor) or given.shape != (size,):
        shape = list(given.shape) if isinstance(given, Tensor) else type(given).__name__
        return f"gave {shape} where a tensor of shape [{size}] is needed"
    if not given.double().isfinite().all():
        return f"gave {given.tolist()}, which is not finite"
    return _about_factors(given) if kind in ("weights", "correction", "filter") else _about_gradient(kind, given, data)


def _about_factors(given: Tensor) -> str | None:
    fits = bool((given >= 0).all() and (given > 0).any())
    return None if fits else f"gave {given.tolist()}: none may be negative, and not all of them 0"


def _about_gradient(kind: str, given: Tensor, data: dict[str, Any]) -> str | None:
    if not given.requires_grad:
        names = {"surrogate": "a loss", "ratio": "a ratio", "divergence": "a divergence"}
        return f"gave {names[kind]} without gradient: it must depend on log_ratio_T or logprobs_T, not detached"
    gradient_T = _gradient(given, data)
    return None if gradient_T.isfinite().all() else f"has the gradient {gradient_T.tolist()}, which is not finite"


def _about_lists(given: object, rewards_QG: list[list[float | None]]) -> str | None:
    lists = cast("list[list[object]]", given)
    if not isinstance(given, list) or [len(group) for group in lists] != [len(group) for group in rewards_QG]:
        return f"gave {given!r}, which is not one number for each reward of {rewards_QG}"
    if not all(_is_finite(value) for group in lists for value in group):
        return f"gave {given!r} for {rewards_QG}: all are plain finite floats, also where a reward is None"
    return None


def _about_choice(given: object, groups: int) -> str | None:
    kept, further = (
        cast("tuple[object, object]", given) if isinstance(given, tuple) and len(given) == 2 else (None, None)
    )
    if not isinstance(kept, list) or not isinstance(further, int):
        return f"gave {given!r}, which is not Choice(kept, further): a list of places and a number"
    places = cast("list[object]", kept)
    if len(set(places)) < len(places) or not all(isinstance(place, int) and 0 <= place < groups for place in places):
        return f"keeps {places}, which are not different places of {groups} groups"
    return None


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _same(value: object, other: object) -> bool:
    """Of numbers, tensors, and what is made of them."""
    if isinstance(value, Tensor) and isinstance(other, Tensor):
        return torch.equal(value, other)
    if isinstance(value, Whole) and isinstance(other, Whole):
        return all(map(_same, value, other))
    return value == other


def _gradient(loss_T: Tensor, data: dict[str, Any]) -> Tensor:
    (gradient_T,) = torch.autograd.grad(loss_T.sum(), data["logprobs_T"], allow_unused=True)
    return torch.zeros_like(data["logprobs_T"]) if gradient_T is None else gradient_T
