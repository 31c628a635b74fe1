"""What the tests of the learner share: ragged groups, a learner over a tiny policy, and a look at its gradients."""

import asyncio
from dataclasses import replace

import torch

from groupwise.config.presets import PRESETS
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
from groupwise.models.load import prepare_policy
from groupwise.models.trees import Tree
from toys import char_tokenizer, graded_group, tiny_model

MAX_NEW_TOKENS = 9


def policy_of(model=None, *, lora=None, **settings):
    section = ModelSection(id="toy", **settings)
    adapter = None if lora is None else LoraSection(**lora)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return prepare_policy(model or tiny_model("gpt2", dtype=torch.float64), char_tokenizer(), section, adapter)


def algorithm_of(preset="grpo", **settings):
    return Algorithm.of(AlgorithmSection(preset=preset, **{**PRESETS[preset], **settings}), MAX_NEW_TOKENS)


def learner_of(policy, algorithm=None, *, optimizer=None, reference=None, temperature=1.0, **settings):
    return Learner(
        policy,
        algorithm or algorithm_of(),
        LearnerSection(**settings),
        OptimizerSection(**{"lr": 1e-2, **(optimizer or {})}),
        reference=ReferenceSection(**(reference or {})),
        temperature=temperature,
        total_steps=50,
    )


def update(learner, groups, *, exact=False):
    """The metrics of one call of `learner.update`."""
    return asyncio.run(learner.update(groups, sampler_is_exact=exact)).metrics()


class Watched:
    """Stands in a learner's optimizer's place, and notes weights and gradient before each step."""

    def __init__(self, learner):
        self._inner, self._parameters = learner.optimizer, learner.policy.trainable()
        self.gradients, self.weights = [], []
        learner.optimizer = self

    @property
    def learning_rate(self):
        return self._inner.learning_rate

    def backward(self, loss):
        self._inner.backward(loss)

    def discard(self):
        self._inner.discard()

    def step(self):
        self.gradients.append({name: p.grad.clone() for name, p in self._parameters.items() if p.grad is not None})
        self.weights.append({name: p.detach().clone() for name, p in self._parameters.items()})
        return self._inner.step()


def weights_of(policy):
    return {name: parameter.detach().clone() for name, parameter in policy.trainable().items()}


def perturb(policy, size=0.3, seed=5):
    """Move the policy away from where it (and its reference) began."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in policy.trainable().values():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data.add_((size * noise).to(parameter.dtype))


def ragged_groups(algorithm, *, sizes=((4, 5), (1, 3), (7, 4), (3, 2), (9, 3)), seed=0, ungraded=True, positive=False):
    """Groups of (prompt length, rollouts), completions of 1 to 9 tokens, with advantages. Some rewards are None."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count):
        return tuple(torch.randint(4, 99, (count,), generator=generator).tolist())

    groups = []
    for index, (prompt, rollouts) in enumerate(sizes):
        lengths = torch.randint(1, MAX_NEW_TOKENS + 1, (rollouts,), generator=generator).tolist()
        rewards = torch.randn(rollouts, generator=generator)
        rewards = (rewards.abs() if positive else rewards).tolist()
        if ungraded and rollouts > 3:
            rewards[1] = None
        branches = [(tokens(length), reward) for length, reward in zip(lengths, rewards, strict=True)]
        groups.append(graded_group(tokens(prompt), *branches, identity=f"p{index}"))
    return advantaged(groups, algorithm)


def advantaged(groups, algorithm, penalties_QG=None):
    advantages_QG = algorithm.advantages(groups, penalties_QG)
    return [
        replace(group, rollouts=tuple(replace(r, advantage=a) for r, a in zip(group.rollouts, advantages, strict=True)))
        for group, advantages in zip(groups, advantages_QG, strict=True)
    ]


@torch.no_grad()
def sampled_by(policy, groups, *, temperature=1.0, off_by=0.0):
    """The groups with the logprobs of this policy, each token's `off_by` away, up and down in turn."""
    filled = []
    for group in groups:
        branches = tuple(rollout.completion.token_ids for rollout in group.rollouts)
        values = policy.logprobs([Tree(group.prompt_ids, branches)], temperature=temperature)[0].tolist()
        rollouts = []
        for rollout in group.rollouts:
            own, values = values[: len(rollout.completion.token_ids)], values[len(rollout.completion.token_ids) :]
            logprobs = tuple(value + off_by * (-1) ** place for place, value in enumerate(own))
            rollouts.append(replace(rollout, completion=replace(rollout.completion, logprobs=logprobs)))
        filled.append(replace(group, rollouts=tuple(rollouts)))
    return filled
