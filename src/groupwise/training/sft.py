"""The warm start: learn from demonstrations before learning from rewards.

A demonstration is a group of one whose completion is right: the learner then does what it always does, with the plain
log-likelihood as surrogate and every token of an update weighing the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from groupwise.config.presets import PRESETS
from groupwise.config.sections import AlgorithmSection
from groupwise.engines.embedded import EmbeddedEngine
from groupwise.errors import TaskError
from groupwise.learner.algorithm import Algorithm
from groupwise.learner.finite import NonFiniteError
from groupwise.learner.learner import Learner
from groupwise.rewards import TrainerState
from groupwise.rollouts.prompts import Fitted
from groupwise.runs.folder import RunFolder
from groupwise.tasks import Task, build_task
from groupwise.training.build import Parts, fitted
from groupwise.training.course import Course
from groupwise.training.guards import StepGuard
from groupwise.training.machine import memory_budget
from groupwise.training.preflight import of_demonstrations, preflight
from groupwise.training.problems import InOrder
from groupwise.training.reporter import Reporter
from groupwise.training.stop import Stop
from groupwise.types import Completion, Group, Problem, Rollout


async def sft(parts: Parts, run: RunFolder, reporter: Reporter, stop: Stop, *, demonstrations: Sequence[Group]) -> None:
    """Train on demonstrations (see `demonstrated`), evaluate before, during and after."""
    recipe = parts.recipe
    learner = warm_learner_of(parts)
    engine = EmbeddedEngine(parts.policy, recipe.engine.max_rows)
    learner.limit.say = engine.limit.say = reporter.message
    supply = InOrder(demonstrations, recipe.seed)
    course = Course(parts, run, reporter, stop, learner=learner, engine=engine, supply=supply, total=recipe.sft.steps)
    guard = StepGuard(recipe.guards, parts.policy, run, reporter)
    course.also_keep("guard", guard)

    async def one_step(state: TrainerState) -> Mapping[str, float]:
        start = time.perf_counter()
        try:
            with course.deadlines.waiting("learn", "the learner"):
                update = await learner.update(supply.next(recipe.sft.rows_per_step), sampler_is_exact=True)
            guard.passed()
        except NonFiniteError as error:
            guard.refused(state.global_step, error)
            return {"skipped": 1.0, "step_seconds": time.perf_counter() - start}
        seconds = time.perf_counter() - start
        known = ("loss", "entropy", "grad_norm", "learning_rate", "trained_tokens")
        metrics = {name: value for name, value in update.metrics().items() if name in known}
        return metrics | {"step_seconds": seconds, "tokens_per_second": metrics["trained_tokens"] / seconds}

    with memory_budget(recipe.guards.memory_gb if parts.policy.device.type == "cpu" else None), course.deadlines:
        if recipe.guards.preflight:
            worst = of_demonstrations(parts, demonstrations)
            await course.rehearse(preflight(parts, engine, learner, run.path, worst))
        await course.follow("warm start", one_step)


def warm_learner_of(parts: Parts) -> Learner:
    """Who moves the policy towards demonstrations."""
    recipe = parts.recipe
    return Learner(
        parts.policy,
        LIKELIHOOD,
        recipe.learner.model_copy(update={"passes": 1, "updates_per_batch": 1}),
        recipe.optimizer,
        reference=recipe.reference,
        temperature=1.0,
        total_steps=recipe.sft.steps,
    )


def demonstrated(parts: Parts, reporter: Reporter) -> list[Group]:
    """Every training problem with its demonstration, as a group of one. An end token closes each completion.

    What does not fit the model's context is left out, and the reporter is told.
    """
    task, prompts = _demonstrations(parts)
    if prompts is not parts.train and prompts.report.dropped + prompts.report.truncated:
        reporter.message(str(prompts.report))
    assert task.demonstrations is not None
    tokenizer = parts.policy.tokenizer
    end = cast("int | None", tokenizer.eos_token_id)
    if end is None:
        raise TaskError("the tokenizer has no end token, so a demonstration cannot show where an answer ends")
    groups: list[Group] = []
    for problem, prompt_ids in zip(prompts.problems, prompts.prompt_ids, strict=True):
        text = task.demonstrations(problem)
        token_ids = tuple(tokenizer.encode(text, add_special_tokens=False))
        token_ids = token_ids if token_ids[-1:] == (end,) else (*token_ids, end)
        if len(prompt_ids) + len(token_ids) <= parts.policy.context:
            groups.append(_group_of_one(problem, prompt_ids, token_ids, text))
    if not groups:
        raise TaskError(f"no demonstration of {task.name!r} fits the model's context of {parts.policy.context} tokens")
    if left_out := len(prompts.problems) - len(groups):
        reporter.message(
            f"{left_out:,} of {len(prompts.problems):,} demonstrations are left out: with their prompt they have more "
            f"than the {parts.policy.context:,} tokens of the model's context"
        )
    return groups


def _demonstrations(parts: Parts) -> tuple[Task, Fitted]:
    recipe, task, prompts = parts.recipe, parts.task, parts.train
    if recipe.sft.path is not None:
        task = build_task("dataset", {"path": recipe.sft.path}, seed=recipe.seed, folder=parts.loaded.folder)
        # The same words stand in front of a problem in the warm start as afterwards.
        task = replace(task, system_prompt=parts.task.system_prompt)
        prompts = fitted(task.train, task, parts.policy, recipe)
        if task.demonstrations is None:
            raise TaskError(f"sft.path = {recipe.sft.path!r}: every row needs a prompt and a completion, both text")
    if task.demonstrations is None:
        raise TaskError(
            f"the task {task.name!r} has no demonstrations of its own: give rows with a prompt and a completion "
            "as sft.path"
        )
    return task, prompts


def _group_of_one(problem: Problem, prompt_ids: tuple[int, ...], token_ids: tuple[int, ...], text: str) -> Group:
    completion = Completion(token_ids, (0.0,) * len(token_ids), "stop", text)
    return Group(problem, prompt_ids, (Rollout(completion, reward=1.0, advantage=1.0),))


LIKELIHOOD = Algorithm.of(
    AlgorithmSection.model_validate({**PRESETS["grpo"], "surrogate": "reinforce", "weights": "token_mean"}),
    max_new_tokens=1,
)
"""Maximum likelihood as an algorithm like the others: what remains of a policy gradient when every completion is right
and its advantage is 1."""
