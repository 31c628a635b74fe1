"""The gradient of an update, computed in any of the ways that must not matter.

A subject is a model, all of it in float64, an algorithm, and a few groups of random tokens; a way is an order of the
groups, a token budget, padded or packed, and who holds which group. What comes of it is compared in `invariance`.

    bench = Bench(Subject(model=section, algorithm=algorithm))
    gradient = bench.gradient(Way(order=(2, 0, 1, 3, 4), token_budget=30))
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from groupwise.config.sections import (
    AlgorithmSection,
    LearnerSection,
    LoraSection,
    ModelSection,
    OptimizerSection,
    ReferenceSection,
)
from groupwise.learner.algorithm import Algorithm
from groupwise.learner.learner import Learner
from groupwise.learner.optimizer import PolicyOptimizer
from groupwise.learner.world import ALONE, World
from groupwise.models.double import checkpoint_in_double, in_double, load_in_double
from groupwise.models.policy import Policy
from groupwise.models.trees import Tree
from groupwise.types import Completion, Group, Problem, Rollout

SIZES = ((5, 4), (2, 3), (9, 4), (3, 2), (6, 3))
"""Groups by default: tokens of the prompt, rollouts."""

LONGEST = 9
"""Tokens of a completion, at most."""

Gradient = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is examined. It crosses to other processes as JSON: a model by its folder or id, an algorithm by its
    recipe, entries of the user's own by `folder`."""

    model: ModelSection
    algorithm: AlgorithmSection
    lora: LoraSection | None = None
    folder: Path = Path()
    max_new_tokens: int = LONGEST
    sizes: tuple[tuple[int, int], ...] = SIZES
    seed: int = 0

    def to_json(self) -> str:
        """Example: `Subject.from_json(subject.to_json()) == subject`"""
        sections = {"model": self.model, "algorithm": self.algorithm, "lora": self.lora}
        told = {name: None if section is None else section.model_dump() for name, section in sections.items()}
        plain = {"folder": str(self.folder), "max_new_tokens": self.max_new_tokens, "seed": self.seed}
        return json.dumps({**told, **plain, "sizes": self.sizes})

    @classmethod
    def from_json(cls, text: str) -> Subject:
        """The other way."""
        told = json.loads(text)
        return cls(
            model=ModelSection.model_validate(told["model"]),
            algorithm=AlgorithmSection.model_validate(told["algorithm"]),
            lora=None if told["lora"] is None else LoraSection.model_validate(told["lora"]),
            folder=Path(told["folder"]),
            max_new_tokens=told["max_new_tokens"],
            sizes=tuple((prompt, rollouts) for prompt, rollouts in told["sizes"]),
            seed=told["seed"],
        )


@dataclass(frozen=True, slots=True)
class Way:
    """One way to compute the gradient. `ranks` says for each group which process holds it, groups in their own order,
    before they are put into `order`."""

    order: tuple[int, ...]
    token_budget: int = 1 << 20
    chunk: int = 1024
    padded: bool = False
    checkpointing: bool = False
    ranks: tuple[int, ...] | None = None

    def to_json(self) -> str:
        """Example: `Way.from_json(way.to_json()) == way`"""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Way:
        """The other way."""
        told = json.loads(text)
        ranks = None if told["ranks"] is None else tuple(told["ranks"])
        return cls(
            tuple(told["order"]), told["token_budget"], told["chunk"], told["padded"], told["checkpointing"], ranks
        )


class Bench:
    """A subject ready to be asked for its gradient, as often as one likes: nothing is ever stepped."""

    def __init__(self, subject: Subject) -> None:
        with in_double():
            self.policy = load_in_double(subject.model, subject.lora)
            self._algorithm = Algorithm.of(subject.algorithm, subject.max_new_tokens, subject.folder)
            self._start = {name: parameter.detach().clone() for name, parameter in self.policy.trainable().items()}
            self.groups = ragged_groups(self.policy, subject)
        self._packs = self.policy.attention == "trunk_and_branch"
        self._checkpoints = False

    @property
    def can_pack(self) -> bool:
        """Whether the model fits trunk and branch; if not it is always padded."""
        return self._packs

    @property
    def can_checkpoint(self) -> bool:
        """Whether the architecture can compute activations anew."""
        return bool(self.policy.model.supports_gradient_checkpointing)

    def gradient(self, way: Way, world: World = ALONE, rank: int = 0) -> Gradient:
        """The gradients of two passes over the groups, between which the policy moves: so ratios are not 1 and a KL is
        not 0. Of all ranks; one's own groups are those of `rank`."""
        self.policy.use("plain" if way.padded or not self._packs else "trunk_and_branch")
        self._checkpoint(way.checkpointing)
        mine = [self.groups[i] for i in way.order if way.ranks is None or way.ranks[i] == rank]
        with in_double():
            for name, parameter in self.policy.trainable().items():
                parameter.data.copy_(self._start[name])
            learner = Learner(
                self.policy,
                self._algorithm,
                LearnerSection(passes=2, token_budget=way.token_budget, logprob_chunk=way.chunk),
                OptimizerSection(),
                reference=ReferenceSection(),
                temperature=1.0,
                total_steps=1,
                world=world,
            )
            noted = learner.optimizer = _Noted(self.policy, world, self._move)
            mine = _with_advantages(mine, self._algorithm, world)
            asyncio.run(learner.update(mine, sampler_is_exact=False))
        return noted.gradients

    def _move(self) -> None:
        """Every parameter by random numbers of a fiftieth of its size, the same each time and on every rank."""
        generator = torch.Generator().manual_seed(5)
        for parameter in self.policy.trainable().values():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.device)
            parameter.data.add_(0.02 * max(float(parameter.detach().std(correction=0)), 0.01) * noise)

    def _checkpoint(self, on: bool) -> None:
        model = self.policy.model
        if on:
            checkpoint_in_double(self.policy)
        elif self._checkpoints:
            model.gradient_checkpointing_disable()
        self._checkpoints = on


class _Noted(PolicyOptimizer):
    """Notes the gradients, summed over all ranks, and lets another move the policy in place of a step."""

    def __init__(self, policy: Policy, world: World, move: Callable[[], None]) -> None:
        super().__init__(policy.trainable(), OptimizerSection(), 1, world=world)
        self._named = policy.trainable()
        self._step_elsewhere = move
        self.gradients: dict[str, Tensor] = {}

    def step(self) -> float:
        """Take the gradient away."""
        self.sum_over_ranks()
        self.updates += 1
        for name, parameter in self._named.items():
            if parameter.grad is not None:
                self.gradients[f"update {self.updates}, {name}"] = parameter.grad.clone()
                parameter.grad = None
        self._step_elsewhere()
        return 0.0


@torch.no_grad()
def ragged_groups(policy: Policy, subject: Subject) -> list[Group]:
    """Groups of random tokens, without advantages: prompts and completions of different lengths, one rollout that
    nothing graded, logprobs of a sampler that is 0.15 off, up and down in turn."""
    generator = torch.Generator().manual_seed(subject.seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, policy.vocabulary, (count,), generator=generator).tolist())

    groups: list[Group] = []
    for index, (prompt, size) in enumerate(subject.sizes):
        trunk = tokens(prompt)
        lengths = torch.randint(1, min(LONGEST, subject.max_new_tokens) + 1, (size,), generator=generator).tolist()
        rewards: list[float | None] = torch.rand(size, generator=generator, dtype=torch.float64).tolist()
        rewards = [None if index == 0 and branch == 1 else reward for branch, reward in enumerate(rewards)]
        branches = tuple(tokens(length) for length in lengths)
        values = iter(policy.logprobs([Tree(trunk, branches)])[0].tolist())
        rollouts = [
            Rollout(_completion(ids, [next(values) for _ in ids]), {"probe": reward}, reward)
            for ids, reward in zip(branches, rewards, strict=True)
        ]
        groups.append(Group(Problem(f"probe/{index}", ""), trunk, tuple(rollouts)))
    return groups


def _completion(ids: Sequence[int], logprobs: Sequence[float]) -> Completion:
    off = [value + 0.15 * (-1) ** place for place, value in enumerate(logprobs)]
    return Completion(tuple(ids), tuple(off), "stop", "")


def _with_advantages(groups: Sequence[Group], algorithm: Algorithm, world: World) -> list[Group]:
    advantages_QG = algorithm.advantages(groups, world=world)
    return [
        replace(group, rollouts=tuple(replace(r, advantage=a) for r, a in zip(group.rollouts, advantages, strict=True)))
        for group, advantages in zip(groups, advantages_QG, strict=True)
    ]
