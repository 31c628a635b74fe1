"""The Python door: a model, a task, some reward functions, a few settings, `.train()`.

    from groupwise import Trainer

    def short(completions, **kwargs):
        return [-len(text) / 100 for text in completions]

    trainer = Trainer("Qwen/Qwen2.5-0.5B-Instruct", task="gsm8k", rewards=["correctness", short],
                      settings={"train.steps": 100, "optimizer.lr": 2e-6})
    run = trainer.train()

It goes the same way as `groupwise train recipe.toml`: settings are the recipe's, under the same names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from groupwise.config import LoadedRecipe
from groupwise.engines.embedded import EmbeddedEngine
from groupwise.errors import Paused, RecipeError, Stopped, TaskError
from groupwise.learner.optimizer import check_available
from groupwise.models.policy import Policy
from groupwise.models.save import save_policy
from groupwise.rewards import TrainerState
from groupwise.rewards.code import boundary_of
from groupwise.rollouts.prompts import FitReport
from groupwise.runs.entrance import Verb, enter, look
from groupwise.runs.folder import RunFolder
from groupwise.runs.trackers import check_installed
from groupwise.tasks import Task
from groupwise.training.build import Given, Parts, build
from groupwise.training.deadlines import Deadlines
from groupwise.training.evaluate import Evaluation
from groupwise.training.examination import examiner_of
from groupwise.training.given import Reward, recipe_of
from groupwise.training.loop import train
from groupwise.training.reporter import QuietReporter, RecordingReporter, Reporter
from groupwise.training.safety import check_no_weaker
from groupwise.training.sft import demonstrated, sft
from groupwise.training.stop import Stop
from groupwise.training.talk import given_world, with_world

Loop = Callable[[Parts, RunFolder, Reporter, Stop], Coroutine[Any, Any, None]]
Result = TypeVar("Result")


class Trainer:
    """Trains one policy. Nothing is loaded before `train`, `sft` or `parts` is asked for.

    `model` is an id, a folder or a transformers model (then `tokenizer` too). `task` is a task's name (`"gsm8k"`), its
    settings (`{"kind": "arithmetic", "digits": 2}`), a `Task`, or rows: a list of dicts or a `datasets.Dataset` with a
    `prompt` column. `rewards` are functions by TRL's contract, names, or `RewardFunction`s where a weight is wanted;
    none: the task's own. `settings` are those of a recipe under dotted names. `tools` are typed functions with
    docstrings that the model may call; `environment` is a class that it talks to (see `tasks.environments`), by our
    protocol or by TRL's `environment_factory`.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        task: str | Mapping[str, Any] | Task | Iterable[Mapping[str, Any]],
        rewards: Reward | Sequence[Reward] = (),
        settings: Mapping[str, Any] | None = None,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        reporter: Reporter | None = None,
        tools: Sequence[Callable[..., Any]] = (),
        environment: Callable[[], Any] | None = None,
    ) -> None:
        listed = rewards if isinstance(rewards, Sequence) and not isinstance(rewards, str) else [rewards]
        world = given_world(tools, environment)
        model = str(model) if isinstance(model, Path) else model
        loaded, given = recipe_of(model, task, listed, with_world(settings or {}, world), tokenizer)
        given = replace(given, world=world)
        self._become(loaded, given, reporter or QuietReporter())

    @classmethod
    def from_recipe(cls, loaded: LoadedRecipe, reporter: Reporter | None = None, given: Given | None = None) -> Trainer:
        """The trainer of a recipe, and of objects that no recipe can hold.

        Example: `Trainer.from_recipe(load_recipe("recipe.toml", ["optimizer.lr=2e-5"])).train()`
        """
        trainer = cls.__new__(cls)
        trainer._become(loaded, given or Given(), reporter or QuietReporter())
        return trainer

    def _become(self, loaded: LoadedRecipe, given: Given, reporter: Reporter) -> None:
        self._loaded = loaded
        self._given = given
        self._reporter = RecordingReporter(reporter)
        self._parts: Parts | None = None

    @property
    def parts(self) -> Parts:
        """The policy, the task and the prompts; loaded when first asked for."""
        if self._parts is None:
            with self._loading():
                self._parts = build(self._loaded, self._given)
            for prompts in (self._parts.train, self._parts.held_out):
                if prompts is not None and prompts.report.dropped + prompts.report.truncated:
                    cure = "Raise task.max_prompt_tokens or lower sampling.max_new_tokens to keep them whole"
                    self._reporter.message(f"{prompts.report}. {cure}")
        return self._parts

    @property
    def policy(self) -> Policy:
        """The policy, trained or not yet."""
        return self.parts.policy

    def prepare(self, *, by_rewards: bool = True) -> Parts:
        """Load all that a run needs and return it. That a run folder is taken is said before a model is loaded."""
        section = self._loaded.recipe.run
        entrance = look(Path(section.folder), section.name, self._loaded, "train" if by_rewards else "sft")
        check_installed(section.trackers)
        check_available(self._loaded.recipe.optimizer, self.parts.policy.device)
        if by_rewards and not self.parts.rewards:
            raise RecipeError(
                f"rewards: none is named, and the task {self.parts.task.name!r} brings none of its own. Name at least "
                'one: [[rewards]] with function = "correctness" or "reward.py:judge"'
            )
        if by_rewards:
            boundary = boundary_of(self.parts.rewards, opening=True)
            if not entrance.begins:
                check_no_weaker(boundary, RunFolder.open(entrance.path).identity, str(entrance.path))
        return self.parts

    def train(self, stop: Stop | None = None) -> RunFolder:
        """Train by GRPO, from where the run was left, if there is one of this name; returns the run's folder, which
        holds everything, the trained model included. `stop` is for who wants to say what a second Ctrl-C does."""
        self.prepare()
        return self._run("train", train, stop or Stop())

    def sft(self, stop: Stop | None = None) -> RunFolder:
        """Train on demonstrations; returns the run's folder."""
        demonstrations = demonstrated(self.prepare(by_rewards=False), self._reporter)
        return self._run("sft", partial(sft, demonstrations=demonstrations), stop or Stop())

    def evaluate(self) -> Evaluation:
        """Put the held-out problems to the policy as it is now: greedy accuracy, pass@k, every answer. Writes nothing.

        Example: `print(trainer.evaluate())` says `accuracy 0.812 [0.736, 0.870] · reward 1.624`
        """
        parts = self.parts
        if parts.held_out is None:
            raise TaskError(
                f"the task {parts.task.name!r} holds no problems out, so there is nothing to evaluate on: "
                "set task.hold_out or task.eval_split"
            )
        engine = EmbeddedEngine(parts.policy, parts.recipe.engine.max_rows)
        return run_to_end(
            examiner_of(parts, engine, self._reporter).examine(TrainerState(max_steps=parts.recipe.train.steps))
        )

    def save(self, folder: str | Path, *, merge: bool = True) -> None:
        """Write the model so that plain transformers loads it; `merge=False` keeps a LoRA adapter apart."""
        save_policy(self.policy, Path(folder), merge=merge)

    @contextmanager
    def _loading(self) -> Generator[None]:
        recipe = self._loaded.recipe
        with (
            Deadlines(recipe.deadlines, None, self._reporter.message) as deadlines,
            deadlines.waiting("load", f"{recipe.model.id} and the problems, to be loaded"),
        ):
            yield

    def _run(self, verb: Verb, loop: Loop, stop: Stop) -> RunFolder:
        section, parts = self._loaded.recipe.run, self.parts
        with (
            enter(Path(section.folder), section.name, parts.loaded, verb, _identity(parts)) as run,
            self._reporter.recorded(run.log),
            stop.listening(leaving=partial(run.close, "interrupted")),
        ):
            for change in run.changes():
                self._reporter.message(f"changed since the run was here: {change}")
            try:
                run_to_end(loop(parts, run, self._reporter, stop))
            except BaseException:
                self._parts = None  # the policy may be in the middle of an update
                self._reporter.message(
                    f"the run so far is in {run.path}; the same command goes on from {_kept_in(run)}"
                )
                raise
            if stop.asked is not None:
                self._parts = None
                ending = Paused if stop.paused else Stopped
                raise ending(f"{stop.asked}: {run.path} is stopped; the same command goes on from {_kept_in(run)}")
            save_policy(parts.policy, run.model_path)
        return run


def _kept_in(run: RunFolder) -> str:
    step = run.checkpoints.pointed("latest")
    return "its beginning: no step was kept" if step is None else f"step {step}"


def run_to_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Run it, also where an event loop is running already, as in a notebook: then in a thread of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        running = False
    else:
        running = True
    if not running:  # not above: every error would carry that RuntimeError in its traceback
        return asyncio.run(work)
    began: Future[Callable[[], object]] = Future()

    async def stoppable() -> Result:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        began.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
        return await work

    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(asyncio.run, stoppable())
        try:
            return result.result()
        except KeyboardInterrupt:
            # The notebook's stop button reaches this thread only. Where the work itself was interrupted, its loop is
            # closed already.
            with suppress(RuntimeError):
                began.result()()
            raise


def _identity(parts: Parts) -> dict[str, Any]:
    policy = parts.policy
    trained = sum(parameter.numel() for parameter in policy.trainable().values())
    sandbox = boundary_of(parts.rewards)
    return {
        "device": str(policy.device),
        "dtype": str(policy.dtype).removeprefix("torch."),
        "architecture": type(policy.model).__name__,
        "attention": policy.attention,
        "why_plain": policy.why_plain or None,
        "parameters": sum(parameter.numel() for parameter in policy.model.parameters()),
        "trained_parameters": trained,
        "sandbox": None if sandbox is None else {"level": sandbox.level, "boundary": str(sandbox)},
        "problems": len(parts.train.problems),
        "held_out": 0 if parts.held_out is None else len(parts.held_out.problems),
        "prompts": {
            "train": _counts(parts.train.report),
            "held_out": None if parts.held_out is None else _counts(parts.held_out.report),
        },
    }


def _counts(report: FitReport) -> dict[str, int]:
    """What became of the prompts; their problems' names are in the log."""
    return {
        "problems": report.problems,
        "limit": report.limit,
        "longest": report.longest,
        "dropped": report.dropped,
        "truncated": report.truncated,
    }
