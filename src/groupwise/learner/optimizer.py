"""AdamW over fp32 master weights, with warm-up, schedule, gradient clipping and, for fp16, loss scaling.

A 16-bit weight cannot hold a small update: 1 + 1e-3 is 1 in bf16. So where the model computes in 16 bits, the
optimizer owns an fp32 copy of what is trained, gradients are added up in fp32 micro-batch by micro-batch, and the
model's weights are the rounded copy. In fp32 there is one set of weights and nothing is copied.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from groupwise.config.sections import OptimizerSection
from groupwise.errors import LearnerError, RecipeError
from groupwise.learner.finite import Blame, NonFiniteError
from groupwise.learner.world import ALONE, World
from groupwise.models.tables import adding_up

_LOWEST_SCALE = 1.0
_SCALE_GROWS_AFTER = 200


@dataclass(frozen=True, slots=True)
class OwnOptimizer:
    """What a program brings in place of the recipe's optimizer; without a scheduler the recipe's schedule holds."""

    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | None = None


class PolicyOptimizer:
    """Steps the trainable parameters of a policy. `loss_scaling` is for one that computes in fp16.

    Example:

        optimizer = PolicyOptimizer(policy.trainable(), section, total_updates=200)
        for micro_batch in micro_batches:
            optimizer.backward(loss_of(micro_batch))
        gradient_norm = optimizer.step()
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        section: OptimizerSection,
        total_updates: int,
        *,
        loss_scaling: bool = False,
        world: World = ALONE,
    ) -> None:
        if not parameters:
            raise LearnerError("the policy has no trainable parameter")
        self._section = section
        self._world = world
        self._total = total_updates
        self._names = list(parameters)
        self._parameters = list(parameters.values())
        self._masters = [_master(parameter) for parameter in self._parameters]
        self._optimizer = _adamw(parameters, self._masters, section)
        self._scheduler: LRScheduler | None = None
        self._rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        self._scale = 2.0**14 if loss_scaling else 1.0
        self._scaled = loss_scaling
        self._clean_steps = 0
        self.slowed = 1.0
        """What every learning rate is multiplied by beside the schedule: below 1 once a run was rolled back."""
        self.updates = 0
        """Updates made so far, skipped ones included: the schedule counts them."""

    def use(self, own: OwnOptimizer) -> None:
        """Step by what a program brought, from the first update on."""
        self._optimizer, self._scheduler = _checked(own.optimizer, self._masters), own.scheduler
        self._rates = [float(group["lr"]) for group in self._optimizer.param_groups]

    @property
    def learning_rate(self) -> float:
        """Of the next update."""
        if self._scheduler is not None:
            return float(self._optimizer.param_groups[0]["lr"]) * self.slowed
        return self._rates[0] * self.slowed * schedule(self._section, self.updates, self._total)

    def backward(self, loss: Tensor) -> None:
        """Add this micro-batch's gradient."""
        with adding_up():
            (loss * self._scale).backward()  # pyright: ignore[reportUnknownMemberType]
        for parameter, master in zip(self._parameters, self._masters, strict=True):
            if parameter is master or parameter.grad is None:
                continue
            gradient = parameter.grad
            master.grad = gradient.float() if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None

    def step(self) -> float:
        """Clip, step, advance the schedule; returns the gradient's norm before clipping.

        An update whose gradient is not finite is never made. Under fp16's loss scaling an overflow is expected now
        and then: the update is skipped, the scale halved, and the norm returned is infinite.
        """
        groups = self._optimizer.param_groups
        rates = [group["lr"] for group in groups]
        if self._scheduler is None:
            factor = schedule(self._section, self.updates, self._total)
            rates = [rate * factor for rate in self._rates]
        self.updates += 1
        self.sum_over_ranks()
        gradients = [master.grad for master in self._masters if master.grad is not None]
        if self._scale != 1.0:
            for gradient in gradients:
                gradient.div_(self._scale)
        total = torch.nn.utils.get_total_norm(gradients)
        norm = float(total)
        if not math.isfinite(norm):
            self._refuse(norm)
            return math.inf
        torch.nn.utils.clip_grads_with_norm_(self._masters, self._section.max_grad_norm, total)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * self.slowed
        self._optimizer.step()
        if self._scheduler is not None:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate  # a scheduler multiplies what it finds
            self._scheduler.step()
        self._optimizer.zero_grad(set_to_none=True)
        for parameter, master in zip(self._parameters, self._masters, strict=True):
            if parameter is not master:
                parameter.data.copy_(master.data)
        self._grow_scale()
        return norm

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, beside the parameters and the recipe: what `restore` takes. The tensors
        are the live ones."""
        moments = cast("dict[int, dict[str, Any]]", self._optimizer.state_dict()["state"])
        masters = zip(self._parameters, self._masters, strict=True)
        return {
            "moments": {str(place): of_one for place, of_one in moments.items()},
            "masters": {str(i): master.detach() for i, (p, master) in enumerate(masters) if master is not p},
            "scale": self._scale,
            "clean_steps": self._clean_steps,
            "updates": self.updates,
        }

    def _check_moments(self) -> None:
        """torch takes whatever it is given, and the first step would fail, or go wrong."""
        if not isinstance(self._optimizer, torch.optim.AdamW):
            return  # what others keep is theirs
        for name, master in zip(self._names, self._masters, strict=True):
            for kind, value in self._optimizer.state.get(master, {}).items():
                if value.shape not in ((), master.shape):
                    raise ValueError(f"{kind} of {name} has another shape than {name}")

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another left off; learning rate, decay and the like are the recipe's."""
        moments = {int(place): of_one for place, of_one in state["moments"].items()}
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self._check_moments()
        with torch.no_grad():
            for place, master in state["masters"].items():
                self._masters[int(place)].copy_(master)
        self._scale = float(state["scale"])
        self._clean_steps = int(state["clean_steps"])
        self.updates = int(state["updates"])
        if self._scheduler is not None:  # it may be any object, but what it does is a matter of how often it is asked
            for _ in range(self.updates):
                self._scheduler.step()

    def sum_over_ranks(self) -> None:
        """A rank whose groups taught nothing has no gradients; it takes part with zeros."""
        if self._world.size == 1:
            return
        for master in self._masters:
            master.grad = torch.zeros_like(master) if master.grad is None else master.grad
        self._world.add_up([master.grad for master in self._masters if master.grad is not None])

    def reserve(self) -> None:
        """Ask for the memory that the first step will ask for, and give it back; nothing where it was made."""
        if not self._optimizer.state:
            _ = [torch.zeros_like(master) for master in self._masters for _ in range(2)]

    def discard(self) -> None:
        """Forget the gradient that was added up."""
        self._optimizer.zero_grad(set_to_none=True)
        for parameter in self._parameters:
            parameter.grad = None

    def gradient_is_finite(self) -> bool:
        """Whether the gradient that was added up so far is."""
        return self._not_finite() is None

    def _refuse(self, norm: float) -> None:
        wrong = self._not_finite()
        self.discard()
        if self._scaled and self._scale > _LOWEST_SCALE:
            self._scale, self._clean_steps = max(self._scale / 2, _LOWEST_SCALE), 0
            return
        of = f"the gradient of {wrong}" if wrong else "the gradient's norm"
        raise NonFiniteError(Blame(f"update {self.updates}: {of}", norm))

    def _not_finite(self) -> str | None:
        """The first parameter whose gradient is not finite; None if only their norm is not."""
        pairs = zip(self._names, self._masters, strict=True)
        return next((name for name, x in pairs if x.grad is not None and not bool(x.grad.isfinite().all())), None)

    def _grow_scale(self) -> None:
        self._clean_steps += 1
        if self._scaled and self._clean_steps % _SCALE_GROWS_AFTER == 0:
            self._scale *= 2


def schedule(section: OptimizerSection, update: int, total: int) -> float:
    """Factor of the learning rate for update 0, 1, … `total` - 1: a linear rise over the warm-up, then the schedule.

    Example: linear, warmup 0.1, 100 updates: update 0 -> 0.1, 9 -> 1.0, 10 -> 1.0, 55 -> 0.5, 99 -> 1/90.
    """
    warmup = round(section.warmup * total)
    if update < warmup:
        return (update + 1) / warmup
    if section.schedule == "constant":
        return 1.0
    done = min((update - warmup) / max(total - warmup, 1), 1.0)
    return 1.0 - done if section.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def check_available(section: OptimizerSection, device: torch.device) -> None:
    """Raise a `RecipeError` if this optimizer cannot run here."""
    if section.kind != "adamw_8bit":
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        raise RecipeError(
            'optimizer.kind = "adamw_8bit" needs bitsandbytes: pip install "groupwise[adamw_8bit]", or use "adamw"'
        )
    if device.type not in ("cuda", "xpu"):
        raise RecipeError(
            f'optimizer.kind = "adamw_8bit": bitsandbytes has no 8-bit optimizer for {device.type}. Use "adamw".'
        )


def _checked(optimizer: torch.optim.Optimizer, masters: list[Tensor]) -> torch.optim.Optimizer:
    """An optimizer of the program's own, if it steps what is trained."""
    stepped = {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
    left_out = sum(id(master) not in stepped for master in masters)
    if left_out:
        raise LearnerError(
            f"the optimizer that was given does not step {left_out} of the {len(masters)} tensors that are trained: "
            "make it of the parameters of the very model that is trained, adapters included, and in fp32. Weights of "
            "16 bits are trained through fp32 copies, which only an optimizer of our own knows"
        )
    return optimizer


def _master(parameter: nn.Parameter) -> Tensor:
    if parameter.dtype in (torch.float32, torch.float64):
        return parameter
    return parameter.detach().float().clone().requires_grad_()


def _adamw(
    parameters: Mapping[str, nn.Parameter], masters: list[Tensor], section: OptimizerSection
) -> torch.optim.Optimizer:
    """Weight decay acts on matrices only: on a bias or a norm it would pull towards a value that means nothing."""
    matrices = [master for p, master in zip(parameters.values(), masters, strict=True) if p.ndim >= 2]
    vectors = [master for p, master in zip(parameters.values(), masters, strict=True) if p.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": section.weight_decay}]
    groups += [{"params": vectors, "weight_decay": 0.0}] if vectors else []
    settings: dict[str, Any] = {"lr": section.lr, "betas": section.betas, "eps": section.eps}
    if section.kind == "adamw_8bit":
        check_available(section, masters[0].device)
        bitsandbytes = importlib.import_module("bitsandbytes")
        return cast(torch.optim.Optimizer, bitsandbytes.optim.AdamW8bit(groups, **settings))
    fused = masters[0].device.type in ("cpu", "cuda", "mps")
    return torch.optim.AdamW(groups, fused=fused, **settings)
