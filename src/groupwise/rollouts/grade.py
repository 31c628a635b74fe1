"""Grade groups: all rollouts of a step go to every reward function at once, prompt-major, as TRL's contract has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from groupwise.rewards import Answers, Grade, GradingLog, RewardFunction, TrainerState, grade, with_unique_names
from groupwise.types import Group, Rollout

LOOP = "it went round in circles and was cut (loops.tokens)"


async def graded(
    groups: Sequence[Group],
    rewards: Sequence[RewardFunction],
    *,
    trainer_state: TrainerState | None = None,
    log: GradingLog | None = None,
    loop_reward: float = 0.0,
) -> list[Group]:
    """The same groups, every rollout with its reward parts and their weighted sum; one that was cut as a loop gets
    `loop_reward`.

    What the functions log goes into `log`: its columns have one value per rollout, in the order of the groups.
    """
    named = with_unique_names(rewards)
    grades = iter(await grade(rewards, answers(groups), trainer_state=trainer_state, log=log))
    return [
        replace(
            group,
            rollouts=tuple(_stated(_with(rollout, next(grades)), named, loop_reward) for rollout in group.rollouts),
        )
        for group in groups
    ]


def _stated(rollout: Rollout, rewards: Sequence[RewardFunction], loop_reward: float) -> Rollout:
    """A completion that was cut as it went round in circles gets what the recipe states, shared among the parts, for
    some algorithms look at those. Whatever functions read in what is left of it is no answer."""
    if rollout.completion.finish_reason != "loop" or rollout.reward is None:
        return rollout
    weights = {r.name: r.weight for r in rewards if rollout.reward_parts.get(r.name) is not None}
    total = sum(weights.values())
    parts = {**rollout.reward_parts, **dict.fromkeys(weights, loop_reward / total if total else loop_reward)}
    return replace(rollout, reward_parts=parts, reward=loop_reward, outcome="wrong", why=LOOP)


def _with(rollout: Rollout, grade: Grade) -> Rollout:
    if failure := rollout.completion.failure:
        # The environment failed: what would be graded is not the model's.
        return replace(rollout, reward_parts=grade.parts, reward=None, outcome="unknown", why=failure)
    return replace(rollout, reward_parts=grade.parts, reward=grade.reward, outcome=grade.outcome, why=grade.why)


def answers(groups: Sequence[Group]) -> Answers:
    """The batch that reward functions see. A column that some problems lack is None in their rows."""
    pairs = [(group.problem, rollout.completion) for group in groups for rollout in group.rollouts]
    names = list(dict.fromkeys(name for group in groups for name in group.problem.columns))
    columns: dict[str, list[Any]] = {name: [problem.columns.get(name) for problem, _ in pairs] for name in names}
    said = dict.fromkeys(name for _, completion in pairs for name in completion.columns)
    columns |= {name: [completion.columns.get(name) for _, completion in pairs] for name in said}
    if any(completion.messages or completion.failure for _, completion in pairs):
        columns["earned"] = [completion.earned for _, completion in pairs]
    if any(completion.environment is not None for _, completion in pairs):
        columns["environments"] = [completion.environment for _, completion in pairs]
    return Answers(
        prompts=[problem.prompt for problem, _ in pairs],
        completions=[completion.text for _, completion in pairs],
        completion_ids=[completion.token_ids for _, completion in pairs],
        finish_reasons=[completion.finish_reason for _, completion in pairs],
        columns=columns,
        said=[completion.messages for _, completion in pairs],
        tasks=[problem.task for problem, _ in pairs],
    )
