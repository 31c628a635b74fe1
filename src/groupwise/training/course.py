"""The way of a run from its first step to its last, whatever a step is: by rewards or on demonstrations.

Evaluations before, during and after; everything written down as it happens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from groupwise.engines.engine import Engine
from groupwise.learner.learner import Learner
from groupwise.rewards import TrainerState
from groupwise.runs.folder import RunFolder
from groupwise.runs.trackers import Trackers, open_trackers
from groupwise.training.build import Parts
from groupwise.training.deadlines import Deadlines
from groupwise.training.examination import Examination
from groupwise.training.oversight import Oversight
from groupwise.training.problems import Supply
from groupwise.training.reporter import Reporter
from groupwise.training.state import RunState

OneStep = Callable[[TrainerState], Awaitable[Mapping[str, float]]]
"""Does the step that it is given and returns what was measured."""


class Course:
    """One run on its way. `supply` is what steps draw from, `total` is how many steps there are.

    Example: `await Course(parts, run, reporter, learner=learner, engine=engine, supply=problems, total=200).follow(
    "training", one_step)`
    """

    def __init__(
        self,
        parts: Parts,
        run: RunFolder,
        reporter: Reporter,
        *,
        learner: Learner,
        engine: Engine,
        supply: Supply,
        total: int,
    ) -> None:
        self.parts, self.run, self.reporter, self.learner = parts, run, reporter, learner
        self.state = RunState()
        self._supply = supply
        self._total = total
        self._trackers = trackers_of(parts, run, reporter)
        self._examination = Examination(parts, engine, run, reporter, self._trackers)
        self.oversight = Oversight(parts.recipe, run, reporter)
        self.deadlines = Deadlines(parts.recipe.deadlines, run.path / "log", reporter.message)

    def tell_once(self, about: str, words: str | None) -> None:
        """Say something that holds from now on, the first time that it is so."""
        if words and about not in self.state.told:
            self.state.told.add(about)
            self.reporter.message(words)

    async def follow(self, description: str, one_step: OneStep) -> None:
        """All steps to the last, with the evaluations between them."""
        self.reporter.started(self._total, description)
        try:
            with self.deadlines:
                await self._steps(one_step)
        finally:
            self._trackers.close()
            self.reporter.finished()

    async def _steps(self, one_step: OneStep) -> None:
        evaluation = self.parts.recipe.evaluation
        if evaluation.before:
            await self._examine("before", self._trainer_state(0))
        for step in range(self.state.step + 1, self._total + 1):
            state = self._trainer_state(step)
            self._note(state, await one_step(state))
            if evaluation.every and step % evaluation.every == 0 and step < self._total:
                await self._examine(f"step {step}", state)
            if self.oversight.ends(self.state.history):
                break
        await self._examine("after", self._trainer_state(self.state.step))

    async def _examine(self, label: str, state: TrainerState) -> None:
        with self.deadlines.waiting("sample", "the engine and the reward functions, to evaluate"):
            await self._examination.hold(label, state)

    def _trainer_state(self, step: int) -> TrainerState:
        """What reward functions are told about how far training is."""
        return TrainerState(step, self._total, self._supply.epoch, self.state.history)

    def _note(self, state: TrainerState, metrics: Mapping[str, float]) -> None:
        """A step is done."""
        step = self.state.step = state.global_step
        self.state.supply = self._supply.state()
        self.run.metrics.append(step, metrics)
        self.state.history.append({**metrics, "step": step, "epoch": state.epoch})
        self._trackers.log(step, metrics)
        self.reporter.step(metrics)


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
