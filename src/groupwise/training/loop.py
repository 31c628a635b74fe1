"""Training by rewards: what a step of GRPO is in a run."""

from __future__ import annotations

from collections.abc import Mapping

from groupwise.engines.embedded import EmbeddedEngine
from groupwise.engines.engine import Engine
from groupwise.errors import RecipeError
from groupwise.learner.finite import NonFiniteError
from groupwise.learner.learner import Learner
from groupwise.rewards import TrainerState
from groupwise.rollouts.rollouts import Rollouts
from groupwise.rollouts.unknowns import UnknownWatch
from groupwise.runs.folder import RunFolder
from groupwise.training.build import Parts, sampling_of
from groupwise.training.course import Course
from groupwise.training.guards import StepGuard
from groupwise.training.machine import memory_budget
from groupwise.training.mixture import ByTask
from groupwise.training.preflight import preflight
from groupwise.training.problems import Problems, problems_of
from groupwise.training.report import StepReport, about_ungraded
from groupwise.training.reporter import Reporter
from groupwise.training.step import grpo_step
from groupwise.training.stop import Stop
from groupwise.training.talk import conversations_of


async def train(parts: Parts, run: RunFolder, reporter: Reporter, stop: Stop) -> None:
    """Train by GRPO and evaluate before, during and after. The policy in `parts` is the trained one afterwards."""
    recipe = parts.recipe
    engine = EmbeddedEngine(parts.policy, recipe.engine.max_rows)
    learner, rollouts = learner_of(parts), rollouts_of(parts, engine)
    problems = supply_of(parts)
    course = Course(
        parts, run, reporter, stop, learner=learner, engine=engine, supply=problems, total=recipe.train.steps
    )
    whom = {
        "sample": "the engine, to sample",
        "grade": f"the reward functions {', '.join(reward.name for reward in parts.rewards)}",
        "learn": "the learner",
        "sync": "the engine, to take the new weights",
    }
    guard = StepGuard(recipe.guards, parts.policy, run, reporter)
    course.also_keep("guard", guard)
    learner.limit.say = engine.limit.say = reporter.message

    unknowns = UnknownWatch(reporter.message)

    async def one_step(state: TrainerState) -> Mapping[str, float]:
        report, step = StepReport(course.deadlines, whom), state.global_step
        skipped: dict[str, float] = {}
        try:
            groups = await grpo_step(
                problems,
                recipe.train.prompts_per_step,
                rollouts=rollouts,
                learner=learner,
                algorithm=parts.algorithm,
                state=state,
                report=report,
            )
            guard.passed()
        except NonFiniteError as error:
            groups, skipped = guard.refused(step, error), {"skipped": 1.0}
            await engine.load_weights(learner.weights())  # earlier updates of the step may have been made
        run.save_rollouts(step, groups, None if skipped else report.graded.columns)
        unknowns.observe(f"step {step}", groups)
        await parts.companion.saw(groups)
        if words := about_ungraded(groups):
            course.tell_once("ungraded", f"step {step}: {words}")
        return {**report.metrics(), **course.oversight.seen(groups), **skipped}

    # A GPU's memory has its own end; this budget is for a machine that others use too.
    with memory_budget(recipe.guards.memory_gb if parts.policy.device.type == "cpu" else None), course.deadlines:
        if recipe.guards.preflight:
            await course.rehearse(preflight(parts, engine, learner, run.path))
        await course.follow("training", one_step)


def supply_of(parts: Parts) -> Problems:
    """Where the problems of the steps come from: a mixture's by weight, others' in the recipe's order."""
    recipe = parts.recipe
    if not parts.task.weights:
        return problems_of(recipe.problems, parts.train.problems, recipe.seed)
    if recipe.problems.order != "epochs":
        raise RecipeError(
            f'problems.order = "{recipe.problems.order}": a mixture has an order of its own. Leave it away'
        )
    return ByTask(parts.train.problems, parts.task.weights, recipe.seed)


def learner_of(parts: Parts) -> Learner:
    """Who moves the policy."""
    recipe = parts.recipe
    learner = Learner(
        parts.policy,
        parts.algorithm,
        recipe.learner,
        recipe.optimizer,
        reference=recipe.reference,
        temperature=recipe.sampling.temperature,
        total_steps=recipe.train.steps,
    )
    if parts.optimizer is not None:
        learner.optimizer.use(parts.optimizer)
    return learner


def rollouts_of(parts: Parts, engine: Engine) -> Rollouts:
    """Who samples groups and has them graded."""
    rollouts = Rollouts(
        engine,
        parts.rewards,
        sampling_of(parts.recipe),
        group_size=parts.recipe.train.group_size,
        prompt_ids=dict(zip((p.id for p in parts.train.problems), parts.train.prompt_ids, strict=True)),
        seed=parts.recipe.seed,
        conversations=conversations_of(parts, engine),
        sampler=parts.sampler,
    )
    rollouts.loop_reward = parts.recipe.loops.reward
    return rollouts
