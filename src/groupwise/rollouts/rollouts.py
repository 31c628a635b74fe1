"""Groups: each problem put to the engine G times, then graded."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from groupwise.engines.engine import Engine
from groupwise.rewards import GradingLog, RewardFunction, TrainerState
from groupwise.rollouts.conversation import Conversations
from groupwise.rollouts.grade import graded
from groupwise.types import Group, Problem, Rollout, Sampling

Sampler: TypeAlias = Callable[[Sequence[Problem], int], Awaitable[list[Group]]]
"""Groups of so many completions each, sampled by a program in place of the engine."""


class Rollouts:
    """Samples and grades whole groups.

    Example:

        rollouts = Rollouts(engine, rewards, sampling, group_size=8, prompt_ids=prompt_ids, seed=0)
        groups = await rollouts.grade(await rollouts.sample(problems, step=1))
    """

    def __init__(
        self,
        engine: Engine,
        rewards: Sequence[RewardFunction],
        sampling: Sampling,
        *,
        group_size: int,
        prompt_ids: Mapping[str, tuple[int, ...]],
        seed: int,
        conversations: Mapping[str, Conversations] | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        self.engine = engine
        self._rewards = rewards
        self._sampling = sampling
        self._group_size = group_size
        self._prompt_ids = prompt_ids
        self._seed = seed
        self._conversations = conversations or {}
        self._sampler = sampler
        self.loop_reward = 0.0
        """What a completion that was cut as a loop gets (loops.reward)."""

    @property
    def exact(self) -> bool:
        """Whether the logprobs are those of the learner's own forward: of another sampler nobody knows."""
        return self.engine.exact and self._sampler is None

    async def sample(self, problems: Sequence[Problem], step: int, before: Sequence[Group] = ()) -> list[Group]:
        """A group per problem. The same problem drawn twice in a step gets two different groups: `before` are those of
        the same step that were sampled already."""
        if self._sampler is not None:
            return await self._sampler(problems, self._group_size)
        drawn = Counter(group.problem.id for group in before)
        calls = []
        for problem in problems:
            first = drawn[problem.id] * self._group_size
            drawn[problem.id] += 1
            seeds = [rollout_seed(self._seed, step, problem.id, first + i) for i in range(self._group_size)]
            asked = Asked(problem, self._prompt_ids[problem.id], seeds)
            calls.append(sampled_group(self.engine, asked, self._sampling, self._conversations))
        return list(await asyncio.gather(*calls))

    async def grade(
        self, groups: Sequence[Group], state: TrainerState | None = None, log: GradingLog | None = None
    ) -> list[Group]:
        """The same groups with rewards."""
        return await graded(groups, self._rewards, trainer_state=state, log=log, loop_reward=self.loop_reward)


@dataclass(frozen=True, slots=True)
class Asked:
    """A problem, its prompt's ids and a seed for each completion."""

    problem: Problem
    prompt_ids: tuple[int, ...]
    seeds: Sequence[int]


async def sampled_group(
    engine: Engine, asked: Asked, sampling: Sampling, conversations: Mapping[str, Conversations]
) -> Group:
    """The group of a problem: a completion for each seed, or a conversation where its task has an environment."""
    if (conversation := conversations.get(asked.problem.task)) is not None:
        return await conversation.group(asked.problem, sampling, asked.seeds)
    completions = await engine.sample(asked.prompt_ids, len(asked.seeds), sampling, asked.seeds)
    return Group(asked.problem, asked.prompt_ids, tuple(Rollout(completion) for completion in completions))


def rollout_seed(seed: int, step: int, problem_id: str, branch: int) -> int:
    """64 bits that belong to one rollout of a run, whoever shares its batch and whatever came before.

    Example: `rollout_seed(0, 17, "gsm8k/train/41", 3)`
    """
    name = f"{seed}\0{step}\0{problem_id}\0{branch}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")
