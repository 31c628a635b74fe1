"""The way of a run from its first step to its last, whatever a step is: by rewards or on demonstrations.

Evaluations before, during and after; everything written down as it happens, and saved, so that the way can be taken up
where it was left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from groupwise.engines.engine import Engine
from groupwise.learner.learner import Learner
from groupwise.rewards import TrainerState
from groupwise.runs.checkpoints.contents import as_written
from groupwise.runs.checkpoints.tree import Tree
from groupwise.runs.folder import RunFolder
from groupwise.runs.rewind import rewind
from groupwise.runs.trackers import Trackers, open_trackers
from groupwise.training.budgets import Spent, seconds_of, tokens_of
from groupwise.training.build import Parts
from groupwise.training.deadlines import Deadlines
from groupwise.training.examination import Examination
from groupwise.training.keeper import Keeper
from groupwise.training.oversight import Oversight
from groupwise.training.problems import Supply
from groupwise.training.randomness import Randomness
from groupwise.training.reporter import Reporter
from groupwise.training.state import RunState, history
from groupwise.training.stateful import RewardStates, Stateful
from groupwise.training.stop import Stop

OneStep = Callable[[TrainerState], Awaitable[Mapping[str, float]]]
"""Does the step that it is given and returns what was measured."""


class Course:
    """One run on its way. `supply` is what steps draw from, `total` is how many steps there are.

    Example: `await Course(parts, run, reporter, stop, learner=learner, engine=engine, supply=problems,
    total=200).follow("training", one_step)`
    """

    def __init__(
        self,
        parts: Parts,
        run: RunFolder,
        reporter: Reporter,
        stop: Stop,
        *,
        learner: Learner,
        engine: Engine,
        supply: Supply,
        total: int,
    ) -> None:
        self.parts, self.run, self.reporter, self.stop = parts, run, reporter, stop
        self.state = RunState()
        run.patience.begin(reporter.message)
        self._evaluation = parts.recipe.evaluation
        self._total = total
        self._trackers = trackers_of(parts, run, reporter)
        self._engine, self._learner, self._description = engine, learner, ""
        self._examination = Examination(parts, engine, run, reporter, self._trackers)
        self.oversight = Oversight(parts.recipe, run, reporter)
        self.deadlines = Deadlines(parts.recipe.deadlines, run.path / "log", reporter.message)
        self._keeper = Keeper(parts, run, learner, reporter.message)
        self._supply = supply
        self._stateful: dict[str, Stateful] = {
            "supply": supply,
            "rewards": RewardStates(parts.rewards),
            "random": Randomness(parts.recipe.seed),
        }

        if isinstance(engine, Stateful):
            self._stateful["engine"] = engine

    def also_keep(self, name: str, what: Stateful) -> None:
        """Something else that a step leaves for the next one."""
        self._stateful[name] = what

    def tell_once(self, about: str, words: str | None) -> None:
        """Say something that holds from now on, the first time that it is so."""
        if words and about not in self.state.told:
            self.state.told.add(about)
            self.reporter.message(words)

    async def rehearse(self, preflight: Coroutine[Any, Any, str]) -> None:
        """What is tried out before the first step, under a deadline."""
        with self.deadlines.waiting("load", "the preflight, the worst case of this recipe"):
            self.reporter.message(await preflight)

    async def follow(self, description: str, one_step: OneStep) -> None:
        """All steps to the last, with the evaluations between them; from where the run was left, if it was. Returns
        early if it is asked to stop. Inside `deadlines`."""
        waiting = self.deadlines.waiting("load", "the disk, for the newest checkpoint")
        with waiting, as_written(self.run.checkpoints.folder):
            self._take_up()
        self.parts.companion.may_keep(self._keep_now)
        self._description = description
        self.reporter.started(self._total, description, done=self.state.step)
        try:
            with self.stop.dropping(self._keeper.may_drop, self.reporter.message):
                await self._steps(one_step)
        except asyncio.CancelledError:
            if self.stop.asked is None:
                raise
        finally:
            with self._saving():
                self._keeper.close(self.oversight.budgets.seconds)
            self._trackers.close()
            self.reporter.finished()

    async def _steps(self, one_step: OneStep) -> None:
        if self._evaluation.before and not self.state.step:
            await self._evaluate("before")
        elif self._is_evaluated(self.state.step):
            await self._evaluate(f"step {self.state.step}")
        while self.state.step < self._total and not self.state.ended:
            if self.stop.asked is not None:
                return
            await self._next(one_step)
        if self.stop.paused:
            return
        if await self._evaluate("after"):
            self._keeper.point_to_best(self.state.step)

    async def _next(self, one_step: OneStep) -> None:
        """One step, and what becomes of the run after it."""
        step = self.state.step + 1
        state = self._trainer_state(step)
        await self.parts.companion.begins(state)
        metrics = await one_step(state)
        self._note(state, metrics)
        goes_on = await self.parts.companion.goes_on(state, metrics)
        improved = self._is_evaluated(step) and await self._evaluate(f"step {step}")
        verdict = self.oversight.verdict(self.state.history)
        if verdict.action == "roll_back" and await self._turned_back(verdict.why):
            return
        self.state.ended = verdict.action == "stop" or not goes_on
        if verdict.action in ("pause", "roll_back"):
            self.stop.pause(verdict.why)
        leaves = self.state.ended or self.stop.paused or step == self._total
        if improved or leaves or self._keeper.is_due(step):
            self._remember()
            with self._saving():
                self._keeper.save(best=improved, waited_for=leaves)

    async def _turned_back(self, why: str) -> bool:
        """Take the run back to the last good checkpoint, to go on at a lower learning rate; says so, and False, if that
        cannot be."""
        section, step, spent = self.parts.recipe.alarms, self.state.step, self.oversight.budgets.seconds
        times = self.state.turned_back + 1
        if times > section.roll_backs:
            self.reporter.message(f"not rolled back: {times - 1} times are enough (alarms.roll_backs)")
            return False
        kept = self._keeper.go_back(step - section.roll_back_steps)
        if kept is None:
            self.reporter.message("not rolled back: no checkpoint is old enough (alarms.roll_back_steps)")
            return False
        tokens = self.state.tokens_taken_back + tokens_of(self.state.history)
        self._restored(kept)
        self.state.turned_back, factor = times, section.roll_back_lr**times
        self.state.tokens_taken_back = tokens - tokens_of(self.state.history)
        self._oversee(spent)
        self._keeper.slow_down(factor)
        await self._engine.load_weights(self._learner.weights())
        text = f"{why}: the run is taken back from step {step} to step {self.state.step}, the learning rate to "
        text += f"{factor:g} of the recipe's"
        self.oversight.note(self.state.step, text, {"from": step, "learning_rate": factor})
        self._remember()
        self._keeper.save()  # that it was taken back must not be forgotten
        self.reporter.finished()
        self.reporter.started(self._total, self._description, done=self.state.step)
        return True

    def _is_evaluated(self, step: int) -> bool:
        return bool(self._evaluation.every) and step % self._evaluation.every == 0 and 0 < step < self._total

    async def _evaluate(self, label: str) -> bool:
        """Evaluate, unless the run has done so already before it was left; whether it is the best step so far, as far
        as that is asked for."""
        step = self.state.step
        if not self._examination.was_held(step, label):
            with self.deadlines.waiting("sample", "the engine and the reward functions, to evaluate"):
                await self._examination.hold(label, self._trainer_state(step))
            if step:
                self._remember()
        return self.parts.recipe.checkpoints.best and self._examination.best_step() == step > 0

    def _trainer_state(self, step: int) -> TrainerState:
        """What reward functions are told about how far training is."""
        return TrainerState(step, self._total, self._supply.epoch, self.state.history)

    def _note(self, state: TrainerState, metrics: Mapping[str, float]) -> None:
        """A step is done."""
        step = self.state.step = state.global_step
        self.run.metrics.append(step, metrics)
        self.state.history.append({**metrics, "step": step, "epoch": state.epoch})
        self._remember()
        self._trackers.log(step, metrics)
        self.reporter.step(metrics)

    def _remember(self) -> None:
        self.state.seconds = self.oversight.budgets.seconds
        state = {name: each.state() for name, each in self._stateful.items()}
        self._keeper.remember(self.state.step, {**state, "run": self.state.state()})

    def _keep_now(self) -> Path | None:
        self._remember()
        with self._saving():
            return self._keeper.save_and_wait()

    def _saving(self) -> AbstractContextManager[None]:
        return self.deadlines.waiting("save", "the disk, to keep the run")

    def _take_up(self) -> None:
        """Go on where the run was left; a run without a checkpoint begins."""
        kept = self._keeper.take_up()
        step = 0 if kept is None else int(kept["run"]["step"])
        recorded = self.run.identity.get("seconds")
        spent = float(recorded) if isinstance(recorded, int | float) else 0.0
        spent = max(spent, 0.0 if kept is None else float(kept["run"]["seconds"]))
        spent += seconds_of([row for row in self.run.metrics.read() if (row.get("step") or 0) > step])
        self.run.record({"seconds": spent})  # before their rows are dropped
        if kept is None:
            rewind(self.run.path, 0, evaluations=False)
            self._oversee(spent)
            return
        self._restored(kept)
        self._oversee(spent)
        self.state.ended = self.state.ended and not self.run.changes()
        self._keeper.slow_down(self.parts.recipe.alarms.roll_back_lr**self.state.turned_back)
        self.reporter.message(f"going on from step {self.state.step} of {self._total}")

    def _restored(self, kept: Tree) -> None:
        """Everything beside weights and learner as it was when this was kept, and the records with it."""
        self.state.restore(kept["run"])
        for name, each in self._stateful.items():
            if name in kept:  # or an earlier version did not know of it
                each.restore(kept[name])
        self.run.patience.forget_after(self.state.step)
        rewind(self.run.path, self.state.step, evaluations=self.state.step > 0)
        self.state.history = history(self.run.metrics.read())
        self._examination.take_up()

    def _oversee(self, spent_seconds: float) -> None:
        """Anew: what was told of later steps is forgotten, what they cost is not."""
        spent = Spent(spent_seconds, self.state.tokens_taken_back)
        self.oversight = Oversight(self.parts.recipe, self.run, self.reporter, spent)


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
