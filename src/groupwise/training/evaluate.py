"""How good is the policy on problems that it never trained on? Greedy accuracy, pass@k, and every answer kept."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from groupwise.engines.engine import Engine
from groupwise.rewards import RewardFunction, TrainerState
from groupwise.rollouts.conversation import Conversations
from groupwise.rollouts.grade import graded
from groupwise.rollouts.prompts import Fitted
from groupwise.rollouts.rollouts import Asked, rollout_seed, sampled_group
from groupwise.rollouts.unknowns import UnknownWatch
from groupwise.runs.evaluations import EvaluatedAnswer
from groupwise.tasks.task import IsCorrect
from groupwise.training.reporter import QuietReporter, Reporter
from groupwise.training.statistics import Estimate, accuracy, pass_at_k
from groupwise.types import Group, Sampling


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Greedy accuracy (`None` for a task without gold answers), mean greedy reward, pass@k, and the answers."""

    accuracy: Estimate | None
    reward: float | None
    pass_at: Mapping[int, Estimate] = field(default_factory=dict[int, Estimate])
    answers: tuple[EvaluatedAnswer, ...] = ()

    def __str__(self) -> str:
        parts = [f"accuracy {self.accuracy}"] if self.accuracy is not None else []
        parts += [f"pass@{k} {estimate}" for k, estimate in self.pass_at.items()]
        parts += [f"reward {self.reward:.3f}"] if self.reward is not None else []
        return " · ".join(parts)

    def result(self) -> dict[str, Any]:
        """The numbers, for evals.jsonl."""
        numbers: dict[str, Any] = {"reward": self.reward}
        estimates = {"accuracy": self.accuracy, **{f"pass@{k}": e for k, e in self.pass_at.items()}}
        for name, estimate in estimates.items():
            if estimate is not None:
                numbers |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
                numbers["problems"] = estimate.problems
        return numbers | self._by_task()

    def _by_task(self) -> dict[str, float]:
        """In a mixture: the accuracy of each task."""
        if self.accuracy is None:
            return {}
        greedy = [answer for answer in self.answers if answer.greedy and answer.problem.task]
        names = dict.fromkeys(answer.problem.task for answer in greedy)
        return {f"accuracy/{name}": fmean([a.correct for a in greedy if a.problem.task == name]) for name in names}

    def greedy_correct(self) -> list[bool]:
        """Right or wrong by problem, in order; comparable between two evaluations of the same problems."""
        return [answer.correct for answer in self.answers if answer.greedy]


@dataclass(frozen=True, slots=True)
class Examiner:
    """Held-out problems and how their answers are judged. One examiner serves all evaluations of a run.

    `samples` completions per problem are drawn for pass@k if `pass_at` names any k.
    """

    engine: Engine
    prompts: Fitted
    is_correct: IsCorrect | None
    rewards: Sequence[RewardFunction]
    sampling: Sampling
    pass_at: Sequence[int] = ()
    samples: int = 8
    seed: int = 0
    loop_reward: float = 0.0
    reporter: Reporter = field(default_factory=QuietReporter)
    conversations: Mapping[str, Conversations] = field(default_factory=dict[str, Conversations])

    async def examine(self, state: TrainerState) -> Evaluation:
        """Put every problem to the policy as it is now. `state` tells reward functions how far training is."""
        self.reporter.started(len(self.prompts.problems) * (1 + self._draws), "evaluating")
        try:
            return await self._examined(state)
        finally:
            self.reporter.finished()

    @property
    def _draws(self) -> bool:
        """Whether pass@k is asked for, and can be told."""
        return bool(self.pass_at) and self.is_correct is not None

    async def _examined(self, state: TrainerState) -> Evaluation:
        greedy = await self._answers(1, replace(self.sampling, temperature=0.0))
        correct = self._judged(greedy, greedy=True)
        sampled: list[EvaluatedAnswer] = []
        estimates: dict[int, Estimate] = {}
        if self._draws:
            groups = await self._answers(self.samples, self.sampling)
            sampled = self._judged(groups, greedy=False)
            counts = [
                (self.samples, sum(answer.correct for answer in sampled[i : i + self.samples]))
                for i in range(0, len(sampled), self.samples)
            ]
            estimates = {k: pass_at_k(counts, k) for k in self.pass_at}
        return Evaluation(
            accuracy=accuracy([answer.correct for answer in correct]) if self.is_correct is not None else None,
            reward=await self._mean_reward(greedy, state),
            pass_at=estimates,
            answers=(*correct, *sampled),
        )

    async def _answers(self, n: int, sampling: Sampling) -> list[Group]:
        asked = [
            Asked(problem, ids, [rollout_seed(self.seed, -1, problem.id, i) for i in range(n)])
            for problem, ids in zip(self.prompts.problems, self.prompts.prompt_ids, strict=True)
        ]
        return list(await asyncio.gather(*(self._answered(one, sampling) for one in asked)))

    async def _answered(self, asked: Asked, sampling: Sampling) -> Group:
        group = await sampled_group(self.engine, asked, sampling, self.conversations)
        self.reporter.step({"length": fmean(len(rollout.completion.token_ids) for rollout in group.rollouts)})
        return group

    def _judged(self, groups: Sequence[Group], *, greedy: bool) -> list[EvaluatedAnswer]:
        return [
            EvaluatedAnswer(
                group.problem,
                rollout.completion,
                correct=self.is_correct is not None and self.is_correct(rollout.completion.text, group.problem.columns),
                greedy=greedy,
                branch=branch,
            )
            for group in groups
            for branch, rollout in enumerate(group.rollouts)
        ]

    async def _mean_reward(self, groups: Sequence[Group], state: TrainerState) -> float | None:
        if not self.rewards:
            return None
        done = await graded(groups, self.rewards, trainer_state=state, loop_reward=self.loop_reward)
        UnknownWatch(self.reporter.message).observe("evaluating", done)
        rewards = [reward for group in done for reward in group.rewards_G]
        known = [reward for reward in rewards if reward is not None]
        return fmean(known) if known else None
