"""The learner: from graded groups to an update of the policy (GRPO, DeepSeekMath, arXiv 2402.03300, equation 3).

    J = sum over tokens of weight * ( min(ratio A, clip(ratio) A) - beta KL(policy || reference) )

Read `update`: pack, anchor, and for each of mu passes, each update, each micro-batch: logprobs, surrogate, KL, weighted
sum, backward; then clip and step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from groupwise.config.sections import LearnerSection, OptimizerSection, ReferenceSection
from groupwise.learner.algorithm import Algorithm
from groupwise.learner.optimizer import PolicyOptimizer
from groupwise.learner.packing import MicroBatch, divide, pack, trained_tokens
from groupwise.learner.report import UpdateReport
from groupwise.models.policy import Policy
from groupwise.models.reference import Reference
from groupwise.types import Group


class Learner:
    """Owns the policy's parameters, the reference and the optimizer.

    Example: `report = await learner.update(groups)` with groups whose rollouts carry their advantages.
    """

    def __init__(
        self,
        policy: Policy,
        algorithm: Algorithm,
        section: LearnerSection,
        optimizer: OptimizerSection,
        *,
        reference: ReferenceSection,
        temperature: float,
        total_steps: int,
    ) -> None:
        self.policy = policy
        self._algorithm = algorithm
        self._section = section
        self._temperature = temperature
        updates = total_steps * section.passes * section.updates_per_batch
        # By the precision of the forward pass, not of what is trained: under LoRA that is fp32 in any case.
        half = policy.dtype is torch.float16
        self.optimizer = PolicyOptimizer(policy.trainable(), optimizer, updates, loss_scaling=half)
        self._dtype = torch.promote_types(policy.dtype, torch.float32)
        self.reference = Reference(policy, reference) if algorithm.beta > 0 else None
        self._steps = 0

    async def update(self, groups: Sequence[Group], *, sampler_is_exact: bool) -> UpdateReport:
        """Maximise J on these groups: `passes` times `updates_per_batch` optimizer steps.

        `sampler_is_exact` says that the groups' logprobs are the policy's own, so they may serve as the old ones.
        """
        report = UpdateReport(self._algorithm.clip_low, self._algorithm.clip_high)
        updates = self._pack(groups)
        old_T = self._old_logprobs(updates, sampler_is_exact)
        reference_T = self._reference_logprobs(updates)
        for _ in range(self._section.passes):
            for micro_batches in updates:
                for micro_batch in micro_batches:
                    # The backward pass too: what checkpointing recomputes must be what the forward pass computed.
                    with self.policy.training():
                        loss = self._loss(micro_batch, old_T, reference_T, report)
                        self.optimizer.backward(loss)
                    await asyncio.sleep(0)  # where an interruption takes effect
                report.observe_step(self.optimizer.learning_rate, self.optimizer.step())
        self._steps += 1
        if self.reference is not None:
            self.reference.follow(self._steps)
        return report

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The policy's parameters by name, for engines that keep their own copy."""
        return ((name, parameter.detach()) for name, parameter in self.policy.model.named_parameters())

    def _loss(
        self,
        batch: MicroBatch,
        old_T: Tensor | None,
        reference_T: Tensor | None,
        report: UpdateReport,
    ) -> Tensor:
        """This micro-batch's share of -J."""
        logprobs_T, entropies_T = self._logprobs(batch, with_entropy=True)
        # Strictly on policy the old logprobs are the new ones, and so is their rounding: the ratio is exactly 1.
        anchor_T = logprobs_T.detach() if old_T is None else old_T[batch.places_T]
        loss_T = self._algorithm.surrogate(logprobs_T, anchor_T, batch.advantages_T, batch.rollout_T)
        kl_T = None
        if reference_T is not None:
            kl_T = self._algorithm.divergence(logprobs_T, reference_T[batch.places_T])
            loss_T = loss_T + self._algorithm.beta * kl_T
        loss = (batch.weights_T * loss_T).sum()
        report.observe_tokens(loss, logprobs_T, anchor_T, batch, entropies_T=entropies_T, kl_T=kl_T)
        return loss

    def _pack(self, groups: Sequence[Group]) -> list[list[MicroBatch]]:
        """The micro-batches of each update. Tokens are numbered through the whole batch."""
        updates: list[list[MicroBatch]] = []
        place = 0
        for part in divide(groups, self._section.updates_per_batch):
            micro_batches = pack(
                part,
                self._algorithm.weights,
                token_budget=self._section.token_budget,
                device=self.policy.device,
                dtype=self._dtype,
                first_place=place,
                skip_silent=self.reference is None,
            )
            place += trained_tokens(part)
            updates.append(micro_batches)
        return updates

    def _old_logprobs(self, updates: list[list[MicroBatch]], sampler_is_exact: bool) -> Tensor | None:
        """Logprobs before the first update; not needed if there is only one."""
        if len(updates) * self._section.passes <= 1:
            return None
        if sampler_is_exact:
            return self._gather(updates, sampled=True, as_policy=nullcontext())
        return self._gather(updates, sampled=False, as_policy=nullcontext())

    def _reference_logprobs(self, updates: list[list[MicroBatch]]) -> Tensor | None:
        if self.reference is None:
            return None
        return self._gather(updates, sampled=False, as_policy=self.reference.active())

    @torch.no_grad()
    def _gather(
        self, updates: list[list[MicroBatch]], *, sampled: bool, as_policy: AbstractContextManager[None]
    ) -> Tensor:
        """One logprob per completion token of the batch, by its place."""
        batches = [batch for micro_batches in updates for batch in micro_batches]
        places = max((int(batch.places_T[-1]) + 1 for batch in batches), default=0)
        logprobs = torch.zeros(places, dtype=self._dtype, device=self.policy.device)
        with as_policy:
            for batch in batches:
                values_T = batch.sampled_T if sampled else self._logprobs(batch, with_entropy=False)[0]
                logprobs[batch.places_T] = values_T.to(logprobs.dtype)
        return logprobs

    def _logprobs(self, batch: MicroBatch, *, with_entropy: bool) -> tuple[Tensor, Tensor | None]:
        return self.policy.logprobs(
            batch.trees, temperature=self._temperature, chunk=self._section.logprob_chunk, with_entropy=with_entropy
        )
