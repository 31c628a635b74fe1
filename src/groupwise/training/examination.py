"""Evaluations of one run: the same problems each time, every answer kept, each compared with the first."""

from __future__ import annotations

from typing import Any

from groupwise.engines.engine import Engine
from groupwise.rewards import TrainerState
from groupwise.runs.folder import RunFolder
from groupwise.runs.trackers import Trackers
from groupwise.training.build import Parts, sampling_of
from groupwise.training.evaluate import Evaluation, Examiner
from groupwise.training.reporter import Reporter
from groupwise.training.statistics import change
from groupwise.training.talk import conversations_of


class Examination:
    """Evaluates the policy when it is told to, and writes down what came of it.

    Example: `await examination.hold("step 50", state)`
    """

    def __init__(self, parts: Parts, engine: Engine, run: RunFolder, reporter: Reporter, trackers: Trackers) -> None:
        self._run = run
        self._trackers = trackers
        self._reporter = reporter
        self._first: list[bool] = []
        """Right or wrong, by problem, before the first step."""
        self._examiner = None if parts.held_out is None else examiner_of(parts, engine, reporter)
        if self._examiner is None:
            reporter.message(
                f"the task {parts.task.name!r} holds no problems out, so nothing is evaluated: see task.hold_out"
            )
        elif parts.recipe.evaluation.pass_at and parts.task.is_correct is None:
            reporter.message(f"the task {parts.task.name!r} has no answers to compare with, so there is no pass@k")

    async def hold(self, label: str, state: TrainerState) -> Evaluation | None:
        """Evaluate the policy as it is now; `None` if there is nothing to evaluate on."""
        if self._examiner is None:
            return None
        evaluation = await self._examiner.examine(state)
        result = evaluation.result()
        self._run.save_evaluation(state.global_step, label, result, evaluation.answers)
        numbers = {f"eval/{name}": value for name, value in result.items() if value is not None}
        self._trackers.log(state.global_step, numbers)
        words = str(evaluation)
        correct = evaluation.greedy_correct()
        if len(self._first) == len(correct) and evaluation.accuracy is not None:
            words += f" ({change(self._first, correct)})"
        self._first = self._first or correct
        self._reporter.evaluated(label, words)
        return evaluation

    def take_up(self) -> None:
        """Compare with the first evaluation that is written down, as if it had been held just now."""
        rows = [row for row in self._of_training() if row.get("answers")]
        if self._examiner is not None and rows:
            self._first = [answer.correct for answer in self._run.answers(rows[0]) if answer.greedy]

    def was_held(self, step: int, label: str) -> bool:
        """Whether this evaluation is written down already."""
        return any(row.get("step") == step and row.get("label") == label for row in self._of_training())

    def best_step(self) -> int | None:
        """The first step with the highest accuracy, or reward where there is none."""
        scores = {int(row.get("step", 0)): row.get("accuracy", row.get("reward")) for row in self._of_training()}
        known = {step: score for step, score in scores.items() if step and score is not None}
        return max(known, key=lambda step: (known[step], -step), default=None)

    def _of_training(self) -> list[dict[str, Any]]:
        """Not those that `groupwise eval` adds."""
        return [row for row in self._run.evaluations() if row.get("label") != "eval"]


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
        loop_reward=parts.recipe.loops.reward,
        reporter=reporter,
        conversations=conversations_of(parts, engine),
    )
