"""One GRPO step, walked through: `training.step.grpo_step` as every run takes it, watched, and nothing else computed.

    walk = await walk_of(parts)
    walk.answers[0].advantage            0.9352...
    walk.updates[1].tokens[0].ratio      1.0831...

What is compared before and after (logprobs of the same answers, a second sampling with the same random numbers) is
asked of the same policy and the same engine that trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groupwise.config import Recipe
from groupwise.engines.embedded import EmbeddedEngine
from groupwise.errors import LearnerError
from groupwise.explain.looks import LookingReport, UpdateLook
from groupwise.learner.algorithm import Algorithm
from groupwise.learner.report import UpdateReport
from groupwise.maths.groups import centred, std_of
from groupwise.maths.sequences import cut_exp, log_ratio
from groupwise.models.trees import Tree
from groupwise.rewards import TrainerState
from groupwise.rollouts.rollouts import Rollouts
from groupwise.training.build import Parts
from groupwise.training.loop import learner_of, rollouts_of
from groupwise.training.problems import InOrder
from groupwise.training.report import StepReport
from groupwise.training.step import grpo_step
from groupwise.types import Group, Problem

DRAWS = 200
"""Groups looked at, at most, for one in which half of the answers are right."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One of the G answers. Logprobs are by token, of the policy before and after the step."""

    text: str
    tokens: tuple[str, ...]
    parts: dict[str, float | None]
    reward: float | None
    advantage: float
    first_place: int
    before: tuple[float, ...]
    after: tuple[float, ...]
    ratios_after: tuple[float, ...]
    again: str
    again_reward: float | None

    @property
    def probability_before(self) -> float:
        """Of the whole answer."""
        return float(torch.tensor(self.before).sum().exp())

    @property
    def probability_after(self) -> float:
        """Of the whole answer."""
        return float(torch.tensor(self.after).sum().exp())


@dataclass(frozen=True, slots=True)
class Moved:
    """How far one tensor of weights went: the length of the change, and of what was there."""

    name: str
    change: float
    size: float


@dataclass(frozen=True, slots=True)
class Walk:
    """Everything that there is to tell about one step."""

    recipe: Recipe
    algorithm: Algorithm
    problem: Problem
    parameters: int
    draw: int
    answers: tuple[Answer, ...]
    mean: float
    std: float
    updates: tuple[UpdateLook, ...]
    metrics: dict[str, float]
    moved: tuple[Moved, ...]


async def walk_of(parts: Parts, draw: int | None = None) -> Walk:
    """Take one step on the first problem. `draw` numbers the random numbers; None: the first at which about half of the
    answers are right, for a group in which all are alike teaches nothing."""
    engine = EmbeddedEngine(parts.policy, parts.recipe.engine.max_rows)
    rollouts, learner = rollouts_of(parts, engine), learner_of(parts)
    problem = parts.train.problems[0]
    draw = await _telling(rollouts, problem) if draw is None else draw
    report = _Report()
    learner.report_of = LookingReport
    before = {name: value.detach().clone() for name, value in parts.policy.trainable().items()}
    groups = await grpo_step(
        InOrder([problem], parts.recipe.seed),
        1,
        rollouts=rollouts,
        learner=learner,
        algorithm=parts.algorithm,
        state=TrainerState(global_step=draw, max_steps=draw),
        report=report,
    )
    again = await rollouts.grade(await rollouts.sample([problem], draw))
    graded = [reward for reward in groups[0].rewards_G if reward is not None]
    deviations = centred(graded)
    return Walk(
        recipe=parts.recipe,
        algorithm=parts.algorithm,
        problem=problem,
        parameters=sum(value.numel() for value in before.values()),
        draw=draw,
        answers=_answers(parts, groups[0], again[0]),
        mean=graded[0] - deviations[0] if graded else 0.0,
        std=std_of(deviations),
        updates=report.looks,
        metrics=report.metrics(),
        moved=_moved(before, {name: value.detach() for name, value in parts.policy.trainable().items()}),
    )


class _Report(StepReport):
    """The report of a step, which also keeps the looks at its updates."""

    looks: tuple[UpdateLook, ...] = ()

    def observe_update(self, update: UpdateReport) -> None:
        """Loss, gradient norm, ratios, KL, and every token."""
        super().observe_update(update)
        assert isinstance(update, LookingReport)
        self.looks = tuple(update.looks)


async def _telling(rollouts: Rollouts, problem: Problem) -> int:
    """The first draw whose better half is half of the group."""
    for draw in range(1, DRAWS + 1):
        (group,) = await rollouts.grade(await rollouts.sample([problem], draw))
        rewards = [reward for reward in group.rewards_G if reward is not None]
        if sum(deviation > 0 for deviation in centred(rewards)) == len(group.rollouts) // 2:
            return draw
    raise LearnerError(
        f"in {DRAWS} groups none had half of its answers above the mean, which the picture needs: choose one with "
        "--draw 1, or change sampling.temperature"
    )


def _answers(parts: Parts, group: Group, again: Group) -> tuple[Answer, ...]:
    branches = [rollout.completion.token_ids for rollout in group.rollouts]
    after = _logprobs(parts, group, branches)
    answers: list[Answer] = []
    place = 0
    for rollout, now, other in zip(group.rollouts, after, again.rollouts, strict=True):
        completion = rollout.completion
        ratio_T = _ratio(parts.algorithm, torch.tensor(now), torch.tensor(completion.logprobs))
        answers.append(
            Answer(
                text=completion.text,
                tokens=tuple(parts.policy.tokenizer.convert_ids_to_tokens(list(completion.token_ids))),
                parts=dict(rollout.reward_parts),
                reward=rollout.reward,
                advantage=rollout.advantage,
                first_place=place,
                before=completion.logprobs,
                after=tuple(now),
                ratios_after=tuple(ratio_T.tolist()),
                again=other.completion.text,
                again_reward=other.reward,
            )
        )
        place += len(completion.token_ids) if rollout.trains else 0
    return tuple(answers)


@torch.no_grad()
def _logprobs(parts: Parts, group: Group, branches: Sequence[tuple[int, ...]]) -> list[list[float]]:
    """Of the policy as it is now, by answer."""
    tree = Tree(group.prompt_ids, tuple(branches))
    logprobs_T, _ = parts.policy.logprobs([tree], temperature=parts.recipe.sampling.temperature)
    return [piece.tolist() for piece in logprobs_T.split([len(branch) for branch in branches])]


def _ratio(algorithm: Algorithm, logprobs_T: Tensor, old_T: Tensor) -> Tensor:
    rollout_T = torch.zeros(len(logprobs_T), dtype=torch.long)
    return cut_exp(algorithm.ratio(log_ratio_T=log_ratio(logprobs_T, old_T), rollout_T=rollout_T))


def _moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> tuple[Moved, ...]:
    return tuple(
        Moved(name, float((after[name] - value).norm()), float(value.norm())) for name, value in before.items()
    )
