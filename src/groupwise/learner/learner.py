"""The learner: from graded groups to an update of the policy (GRPO, DeepSeekMath, arXiv 2402.03300, equation 3).

    J = sum over tokens of weight * ( min(ratio A, clip(ratio) A) - beta KL(policy || reference) )

Read `update`: pack, anchor, and for each of mu passes, each update, each micro-batch: logprobs, objective, backward;
then clip and step. What stands in place of the clipped ratio, and all else that the recipe may choose, is in
`objective`.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from groupwise.config.sections import LearnerSection, OptimizerSection, ReferenceSection
from groupwise.learner.algorithm import Algorithm
from groupwise.learner.coefficients import Coefficients
from groupwise.learner.draws import draws_of
from groupwise.learner.finite import OLD, NonFiniteError, blamed, check_groups, check_terms
from groupwise.learner.memory import MicroBatchLimit, token_budget
from groupwise.learner.objective import Scores, objective
from groupwise.learner.one_update import Anchors, OneUpdate
from groupwise.learner.optimizer import PolicyOptimizer
from groupwise.learner.packing import MicroBatch, divide, pack, trained_tokens
from groupwise.learner.report import UpdateReport
from groupwise.learner.scoring import Scorer, sampled
from groupwise.learner.world import ALONE, World, weighing
from groupwise.maths.whole import Whole
from groupwise.models.allocator import keep_freed_memory
from groupwise.models.policy import Policy
from groupwise.models.reference import Reference
from groupwise.models.scarce import is_out_of_memory
from groupwise.models.transfer import on_device
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
        world: World = ALONE,
    ) -> None:
        self.policy = policy
        self.coefficients = Coefficients(algorithm)
        """Of the KL term and the entropy bonus; some algorithms move them."""
        self.report_of: Callable[..., UpdateReport] = UpdateReport
        """What watches an update. Whoever wants to see more of it than means puts a subclass here."""
        keep_freed_memory()
        self._algorithm = algorithm
        self._section = section
        self.world = world
        """All ranks that share the updates."""
        self.limit = MicroBatchLimit(token_budget(section, policy.device))
        """Tokens of a micro-batch: what the recipe says, or less once the memory did not suffice."""
        self._scorer = Scorer(policy, temperature, section.logprob_chunk, world)
        updates = total_steps * section.passes * section.updates_per_batch
        # By the precision of the forward pass, not of what is trained: under LoRA that is fp32 in any case.
        half = policy.dtype is torch.float16
        self.optimizer = PolicyOptimizer(policy.trainable(), optimizer, updates, loss_scaling=half, world=world)
        self._dtype = torch.promote_types(policy.dtype, torch.float32)
        self.reference = Reference(policy, reference) if algorithm.section.beta > 0 else None
        self._steps = 0
        self._kl_in_reward: float | None = None

    def penalties(self, groups: Sequence[Group], *, sampler_is_exact: bool) -> list[list[float]] | None:
        """What the KL takes off the reward of each rollout, beta times the sum over its tokens; `None` where it stands
        in the loss. Before the update of the same groups."""
        if not self._algorithm.kl_in_reward:
            return None
        assert self.reference is not None
        batches = self._pack(groups, skip_silent=False).micro_batches
        policy_T = sampled(batches) if sampler_is_exact else self._scorer.gather(batches)
        reference_T = self._scorer.gather(batches, self.reference.active())
        kl_T = self._algorithm.divergence(logprobs_T=policy_T, reference_logprobs_T=reference_T)
        kl = iter(kl_T.tolist())
        sums_QG = [[sum(next(kl) for _ in range(rollout.trained)) for rollout in group.rollouts] for group in groups]
        penalties_QG = [[self.coefficients.beta * value for value in sums_G] for sums_G in sums_QG]
        kl_sum, tokens, rollouts = self.world.total(float(kl_T.sum()), len(kl_T), sum(map(len, sums_QG)))
        if tokens:
            self._kl_in_reward = kl_sum / tokens
            self.coefficients.follow_kl(self._kl_in_reward, int(rollouts))
        return penalties_QG

    async def update(self, groups: Sequence[Group], *, sampler_is_exact: bool) -> UpdateReport:
        """Maximise J on these groups: `passes` times `updates_per_batch` optimizer steps.

        `sampler_is_exact` says that the groups' logprobs are the policy's own, so they may serve as the old ones.
        """
        check_groups(groups)
        report = self.report_of(sampler_is_exact=sampler_is_exact)
        updates, anchors = self._prepared(groups, sampler_is_exact)
        for _ in range(self._section.passes):
            for place, update in enumerate(updates):
                try:
                    updates[place], report = await self._gradient(update, anchors, report)
                    learning_rate = self.optimizer.learning_rate
                    report.observe_step(learning_rate, self.optimizer.step())
                except NonFiniteError as error:
                    raise blamed(error, groups, self._is_finite) from None
        report.observe_coefficients(self.coefficients, self._kl_in_reward)
        self._steps += 1
        if self.reference is not None:
            self.reference.follow(self._steps)
        return report

    async def rehearse(self, groups: Sequence[Group]) -> None:
        """Everything of an update but the step itself, then forget it: whether the memory suffices is known then."""
        updates, anchors = self._prepared(groups, False)
        coefficients = copy.copy(self.coefficients)
        try:
            for update in updates:
                await self._gradient(update, anchors, UpdateReport(sampler_is_exact=False))
                self.optimizer.reserve()
        finally:
            self.coefficients = coefficients
            self.optimizer.discard()

    async def _gradient(
        self, update: OneUpdate, anchors: Anchors, report: UpdateReport
    ) -> tuple[OneUpdate, UpdateReport]:
        """Add up the gradient of one update, in micro-batches as small as the memory needs them to be."""
        while True:
            seen, enough = copy.deepcopy(report), True
            self.optimizer.discard()  # whatever a program left in `.grad` is no part of it
            try:
                for micro_batch, whole in zip(update.micro_batches, self._look_ahead(update, anchors), strict=True):
                    # The backward pass too: what checkpointing recomputes must be what the forward pass computed.
                    with self.policy.training():
                        loss = self._loss(micro_batch, anchors, update.tokens, whole, seen)
                        self.optimizer.backward(loss)
                    await asyncio.sleep(0)  # where an interruption takes effect
                self._follow(update, seen)
            except BaseException as error:
                self.optimizer.discard()  # a backward pass that broke off has added a part of its gradient
                if not is_out_of_memory(error):
                    raise
                enough = False
            if enough:
                return update, seen
            update = self._smaller([update])[0]  # not above: there the error still holds the memory

    def _prepared(self, groups: Sequence[Group], sampler_is_exact: bool) -> tuple[list[OneUpdate], Anchors]:
        """The updates, and what the policy is compared with."""
        updates = self._updates(groups)
        while True:
            try:
                return updates, self._anchors(groups, updates, sampler_is_exact)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            updates = self._smaller(updates)

    def _smaller(self, updates: Sequence[OneUpdate]) -> list[OneUpdate]:
        """The same updates in micro-batches of half the size."""
        batches = [batch for update in updates for batch in update.micro_batches]
        sizes = [sum(len(tree.trunk) + sum(map(len, tree.branches)) for tree in batch.trees) for batch in batches]
        self.limit.halve(sizes, [sum(len(tree.branches) for tree in batch.trees) for batch in batches])
        skip_silent = self._skips_silent
        return [self._pack(u.groups, skip_silent=skip_silent, first_place=u.first_place) for u in updates]

    def _is_finite(self, groups: Sequence[Group]) -> bool:
        """Whether the loss and the gradient of these groups alone are. Changes nothing."""
        update = self._pack(groups, skip_silent=self._skips_silent)
        anchors, report = self._anchors(groups, [update], True), UpdateReport(sampler_is_exact=True)
        try:
            for micro_batch, whole in zip(update.micro_batches, self._look_ahead(update, anchors), strict=True):
                with self.policy.training():
                    self.optimizer.backward(self._loss(micro_batch, anchors, update.tokens, whole, report))
            return self.optimizer.gradient_is_finite()
        except NonFiniteError:
            return False
        finally:
            self.optimizer.discard()

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The policy's parameters by name, for engines that keep their own copy."""
        return ((name, parameter.detach()) for name, parameter in self.policy.model.named_parameters())

    def state(self) -> dict[str, Any]:
        """All that the next update depends on, beside the weights and the recipe: what `restore` takes."""
        begun_with = token_budget(self._section, self.policy.device)
        return {
            "steps": self._steps,
            "kl_in_reward": self._kl_in_reward,
            "limit": self.limit.tokens if self.limit.tokens < begun_with else None,
            "optimizer": self.optimizer.state(),
            "coefficients": self.coefficients.state(),
            "reference": None if self.reference is None else self.reference.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another left off, whose weights the policy has."""
        self._steps, self._kl_in_reward = int(state["steps"]), state["kl_in_reward"]
        self.limit.tokens = min(state["limit"] or self.limit.tokens, self.limit.tokens)
        self.optimizer.restore(state["optimizer"])
        self.coefficients.restore(state["coefficients"])
        if self.reference is not None:
            self.reference.restore(state["reference"])

    def _loss(
        self, batch: MicroBatch, anchors: Anchors, tokens: int, whole: Whole | None, report: UpdateReport
    ) -> Tensor:
        """This micro-batch's share of -J."""
        logprobs_T, entropies_T = self._scorer.score(batch, entropy_gradient=self._algorithm.has_bonus)
        # Strictly on policy the old logprobs are the new ones, and so is their rounding: the ratio is exactly 1.
        old_T = logprobs_T.detach() if anchors.old_T is None else anchors.old_T[batch.places_T]
        scores = Scores(
            logprobs_T=logprobs_T,
            entropies_T=entropies_T,
            old_T=old_T,
            # Of a sampler that is the policy only rounding is left, and that is no mismatch.
            sampled_T=old_T if anchors.sampler_is_exact else batch.sampled_T,
            reference_T=None if anchors.reference_T is None else anchors.reference_T[batch.places_T],
        )
        names = ("the policy's logprob", OLD, "the reference's logprob")
        check_terms(dict(zip(names, (logprobs_T, scores.old_T, scores.reference_T), strict=True)), batch.places_T)
        terms = objective(self._algorithm, batch, scores, coefficients=self.coefficients, tokens=tokens, update=whole)
        check_terms({"the loss": terms.loss}, batch.places_T)
        report.observe_tokens(terms, scores, batch)
        return terms.loss

    def _follow(self, update: OneUpdate, report: UpdateReport) -> None:
        """The coefficients that move, by what was seen since the last step."""
        seen = [report.sum_since_step(name) for name in ("tokens", "entropy", "kl")]
        tokens, entropy, kl = self.world.total(*seen)
        if not tokens:
            return
        self.coefficients.follow_entropy(entropy / tokens, update.rollouts)
        if self._algorithm.kl_in_loss:
            self.coefficients.follow_kl(kl / tokens, update.rollouts)

    def _updates(self, groups: Sequence[Group]) -> list[OneUpdate]:
        """The groups divided into updates. Tokens are numbered through the whole batch."""
        skip_silent = self._skips_silent
        updates: list[OneUpdate] = []
        place = 0
        count = min(self._section.updates_per_batch, self.world.largest(len(groups)))
        parts = divide(groups, count)
        for part in [*parts, *([] for _ in range(count - len(parts)))]:  # a rank with few groups takes part with none
            updates.append(self._pack(part, skip_silent=skip_silent, first_place=place))
            place += trained_tokens(part)
        return updates

    @property
    def _skips_silent(self) -> bool:
        return not (self._algorithm.kl_in_loss or self._algorithm.needs_silent)

    def _pack(self, groups: Sequence[Group], *, skip_silent: bool, first_place: int = 0) -> OneUpdate:
        micro_batches = pack(
            groups,
            weighing(self.world, self._algorithm.weights),
            token_budget=self.limit.tokens,
            device=self.policy.device,
            dtype=self._dtype,
            first_place=first_place,
            skip_silent=skip_silent,
        )
        graded = sum(reward is not None for group in groups for reward in group.rewards_G)
        tokens, rollouts = self.world.total(trained_tokens(groups), graded)
        return OneUpdate(groups, first_place, micro_batches, int(tokens), int(rollouts))

    def _anchors(self, groups: Sequence[Group], updates: Sequence[OneUpdate], sampler_is_exact: bool) -> Anchors:
        """Asked before the first update: old logprobs, reference logprobs, random numbers, where they are needed."""
        batches = [batch for update in updates for batch in update.micro_batches]
        only_one = len(updates) * self._section.passes <= 1
        old_T = reference_T = draws_T = None
        if self._algorithm.section.anchor == "sampler" and not sampler_is_exact:
            old_T = sampled(batches)
        elif not only_one:
            old_T = sampled(batches) if sampler_is_exact else self._scorer.gather(batches)
        if self._algorithm.kl_in_loss:
            assert self.reference is not None
            reference_T = self._scorer.gather(batches, self.reference.active())
        if self._algorithm.looks_ahead:
            draws_T = on_device(draws_of(groups, self._steps), self.policy.device, self._dtype)
        return Anchors(old_T, reference_T, draws_T, sampler_is_exact)

    def _look_ahead(self, update: OneUpdate, anchors: Anchors) -> Sequence[Whole | None]:
        """For each micro-batch all tokens of the update, if anything looks at them."""
        if anchors.draws_T is None:
            return [None] * len(update.micro_batches)
        return self._scorer.look_ahead(update.micro_batches, anchors.old_T, anchors.draws_T)
