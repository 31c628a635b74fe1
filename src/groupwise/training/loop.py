"""The loop around the step: problems in order, evaluations, everything written down."""

from __future__ import annotations

from groupwise.engines.embedded import EmbeddedEngine
from groupwise.engines.engine import Engine
from groupwise.learner.learner import Learner
from groupwise.rewards import TrainerState
from groupwise.rollouts.rollouts import Rollouts
from groupwise.runs.folder import RunFolder
from groupwise.runs.trackers import Trackers, open_trackers
from groupwise.training.build import Parts, sampling_of
from groupwise.training.evaluate import Evaluation, Examiner
from groupwise.training.problems import Epochs
from groupwise.training.report import StepReport, about_ungraded
from groupwise.training.reporter import Reporter
from groupwise.training.statistics import change
from groupwise.training.step import grpo_step


async def train(parts: Parts, run: RunFolder, reporter: Reporter) -> None:
    """Train by GRPO and evaluate before, during and after. The policy in `parts` is the trained one afterwards."""
    recipe = parts.recipe
    engine = EmbeddedEngine(parts.policy, recipe.engine.max_rows)
    learner, rollouts = learner_of(parts), rollouts_of(parts, engine)
    trackers = trackers_of(parts, run, reporter)
    examination = Examination(parts, engine, run, reporter, trackers)
    problems = Epochs(parts.train.problems, recipe.seed)
    size, history = recipe.train.prompts_per_step, list[dict[str, float]]()
    told_of_ungraded = False

    def state_at(step: int) -> TrainerState:
        return TrainerState(step, recipe.train.steps, problems.epoch(max(step - 1, 0) * size), history)

    reporter.started(recipe.train.steps, "training")
    try:
        if recipe.evaluation.before:
            await examination.hold("before", state_at(0))
        for step in range(1, recipe.train.steps + 1):
            report, state = StepReport(), state_at(step)
            groups = await grpo_step(
                problems.batch((step - 1) * size, size),
                rollouts=rollouts,
                learner=learner,
                algorithm=parts.algorithm,
                state=state,
                report=report,
            )
            run.save_rollouts(step, groups, report.graded.columns)
            metrics = report.metrics()
            run.metrics.append(step, metrics)
            history.append({**metrics, "step": step, "epoch": state.epoch})
            trackers.log(step, metrics)
            reporter.step(metrics)
            if not told_of_ungraded and (words := about_ungraded(groups)):
                reporter.message(f"step {step}: {words}")
                told_of_ungraded = True
            if recipe.evaluation.every and step % recipe.evaluation.every == 0 and step < recipe.train.steps:
                await examination.hold(f"step {step}", state)
        await examination.hold("after", state_at(recipe.train.steps))
    finally:
        trackers.close()
        reporter.finished()


def learner_of(parts: Parts) -> Learner:
    """Who moves the policy."""
    recipe = parts.recipe
    return Learner(
        parts.policy,
        parts.algorithm,
        recipe.learner,
        recipe.optimizer,
        reference=recipe.reference,
        temperature=recipe.sampling.temperature,
        total_steps=recipe.train.steps,
    )


def rollouts_of(parts: Parts, engine: Engine) -> Rollouts:
    """Who samples groups and has them graded."""
    return Rollouts(
        engine,
        parts.rewards,
        sampling_of(parts.recipe),
        group_size=parts.recipe.train.group_size,
        prompt_ids=dict(zip((p.id for p in parts.train.problems), parts.train.prompt_ids, strict=True)),
        seed=parts.recipe.seed,
    )


def trackers_of(parts: Parts, run: RunFolder, reporter: Reporter) -> Trackers:
    """Who is told the metrics, beside the run folder."""
    recipe = parts.recipe
    return open_trackers(
        recipe.run.trackers,
        name=recipe.run.name,
        folder=run.path,
        settings=recipe.model_dump(mode="json"),
        report=reporter.message,
    )


class Examination:
    """Evaluations of one run: the same problems each time, every answer kept, the last compared with the first."""

    def __init__(self, parts: Parts, engine: Engine, run: RunFolder, reporter: Reporter, trackers: Trackers) -> None:
        self._run = run
        self._trackers = trackers
        self._reporter = reporter
        self._first: Evaluation | None = None
        self._examiner = None if parts.held_out is None else examiner_of(parts, engine, reporter)
        if self._examiner is None:
            reporter.message(f"the task {parts.task.name!r} holds no problems out, so nothing is evaluated")
        elif parts.recipe.evaluation.pass_at and parts.task.is_correct is None:
            reporter.message(f"the task {parts.task.name!r} has no answers to compare with, so there is no pass@k")

    async def hold(self, label: str, state: TrainerState) -> None:
        """Evaluate the policy as it is now."""
        if self._examiner is None:
            return
        evaluation = await self._examiner.examine(state)
        result = evaluation.result()
        self._run.save_evaluation(state.global_step, label, result, evaluation.answers)
        numbers = {f"eval/{name}": value for name, value in result.items() if value is not None}
        self._trackers.log(state.global_step, numbers)
        words = str(evaluation)
        if self._first is not None and evaluation.accuracy is not None:
            words += f" ({change(self._first.greedy_correct(), evaluation.greedy_correct())})"
        self._first = self._first or evaluation
        self._reporter.evaluated(label, words)


def examiner_of(parts: Parts, engine: Engine, reporter: Reporter) -> Examiner:
    """Who evaluates on the task's held-out problems."""
    assert parts.held_out is not None
    section = parts.recipe.evaluation
    return Examiner(
        engine=engine,
        prompts=parts.held_out,
        is_correct=parts.task.is_correct,
        rewards=parts.rewards,
        sampling=sampling_of(parts.recipe),
        pass_at=section.pass_at,
        samples=section.samples,
        seed=parts.recipe.seed,
        reporter=reporter,
    )
