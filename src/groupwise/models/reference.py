"""The reference policy of the KL term: where training began, or a slow follower of the policy (TR-DPO, 2404.09656).

A reference is a second set of values for the parameters that are trained, nothing more. While it is asked, those
values stand in the model in place of the policy's. So it costs a copy of the trained weights under full fine-tuning,
a copy of the adapter under LoRA when it moves, and nothing under LoRA when it stays: then it is the adapter switched
off.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from groupwise.config.sections import ReferenceSection
from groupwise.models.policy import Policy


class Reference:
    """The reference of one policy.

    Example:

        reference = Reference(policy, ReferenceSection(every=64, mix=0.6))
        with reference.active():
            reference_logprobs_T, _ = policy.logprobs(trees)
        reference.follow(step=64)      # reference <- 0.6 policy + 0.4 reference
    """

    def __init__(self, policy: Policy, section: ReferenceSection) -> None:
        self._policy = policy
        self._section = section
        self._values: dict[str, Tensor] | None = None
        if policy.adapted is None or section.every is not None:
            beginning = policy.beginning if section.every is None else None
            self._values = beginning or {name: p.detach().clone() for name, p in policy.trainable().items()}
        if self.stays:
            policy.beginning = self._values
        self._exact: dict[str, Tensor] = {}
        """Of a reference that moves: the 16-bit values in fp32, where a small `mix` is not rounded away."""

    @contextmanager
    def active(self) -> Generator[None]:
        """While inside, the policy's forward is the reference's, without gradient."""
        with torch.no_grad():
            if self._values is None:
                assert self._policy.adapted is not None
                with self._policy.adapted.disable_adapter():
                    yield
                return
            self._swap(self._values)
            try:
                yield
            finally:
                self._swap(self._values)

    def follow(self, step: int) -> bool:
        """After the update of `step` (counted from 1), move towards the policy if it is time; says whether it did."""
        if self._values is None or self._section.every is None or step % self._section.every:
            return False
        self.mix(self._section.mix)
        return True

    def mix(self, share: float) -> None:
        """reference <- share * policy + (1 - share) * reference."""
        if self._values is None:
            raise AssertionError("a reference that is the adapter switched off cannot move")
        for name, parameter in self._policy.trainable().items():
            exact = self._exact.get(name, self._values[name])
            if exact.dtype in (torch.bfloat16, torch.float16):
                exact = self._exact[name] = exact.float()
            exact.lerp_(parameter.detach().to(exact.dtype), share)
            if exact is not self._values[name]:
                self._values[name].copy_(exact)

    def state(self) -> dict[str, Any] | None:
        """What `restore` takes: the values of a reference that moves; `None` of one that stays where training began,
        for that is where it begins again."""
        if self._values is None or self._section.every is None:
            return None
        return {"values": dict(self._values), "exact": dict(self._exact)}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Go on where another left off."""
        if state is None or self._values is None:
            return
        for name, value in state["values"].items():
            self._values[name].copy_(value)
        self._exact = {name: value.to(self._values[name].device) for name, value in state["exact"].items()}

    @property
    def stays(self) -> bool:
        """Whether it depends on the weights that training began with: it does not move, and is no adapter switched
        off."""
        return self._values is not None and self._section.every is None

    def _swap(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._policy.trainable().items():
            values[name], parameter.data = parameter.data, values[name]
