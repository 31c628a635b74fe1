"""`GRPOTrainer` and `RLOOTrainer`: TRL's door to our own training. A script changes its import line and runs.

    trainer = GRPOTrainer(model="Qwen/Qwen2.5-0.5B-Instruct", reward_funcs=[reward], args=args, train_dataset=dataset)
    trainer.train()
    trainer.save_model()

A run folder with every metric and every rollout is made as well: `trainer.run`, in `output_dir/runs`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from peft import PeftModel
from transformers import PreTrainedModel, TrainerControl
from transformers import TrainerState as Progress
from transformers.trainer_callback import TrainerCallback
from transformers.trainer_pt_utils import log_metrics, metrics_format, save_metrics, save_state
from transformers.trainer_utils import TrainOutput

from groupwise.compat import hub
from groupwise.compat.batches import batches_of
from groupwise.compat.callbacks import Callback, handler_of
from groupwise.compat.checkpoints import Place, asked_for, go_back_to, read_checkpoint, thin_out, write_checkpoint
from groupwise.compat.completions import print_completions, write_completions
from groupwise.compat.config import GRPOConfig, RLOOConfig, SharedConfig
from groupwise.compat.data import Rows, evaluation_rows, is_stream, prompt_style, training_rows
from groupwise.compat.examine import examine, joined
from groupwise.compat.flow import Flow, Metrics
from groupwise.compat.own_rollouts import OwnRollouts
from groupwise.compat.policies import Brought
from groupwise.compat.reward_models import reward_functions
from groupwise.compat.setup import (
    LoggingReporter,
    affordable,
    checked_args,
    checked_more,
    checked_tokenizer,
    free_name,
    own_optimizer,
    prepare_process,
    turns_settings,
)
from groupwise.compat.translate import translate
from groupwise.compat.worlds import problems_of_rows, several, task_of_rows, worlds_given
from groupwise.config import LoadedRecipe, Recipe
from groupwise.config.sections import OptimizerSection
from groupwise.errors import RunError, TaskError
from groupwise.models.policy import Policy
from groupwise.models.save import save_policy
from groupwise.rewards import TrainerState
from groupwise.runs.folder import RunFolder
from groupwise.training.build import Given, Parts, fitted
from groupwise.training.given import IN_MEMORY, recipe_of
from groupwise.training.keeper import take_weights
from groupwise.training.talk import with_world
from groupwise.training.trainer import Trainer, run_to_end
from groupwise.types import Group


class GRPOTrainer:
    """TRL's trainer over ours. The arguments are TRL's; beside those written out there are `optimizers`, `peft_config`,
    `quantization_config`, `tools`, `rollout_func` and `environment_factory`, by keyword.

    Everything is loaded and checked here, so that a script that cannot run ends before it trains.
    """

    config: ClassVar[type[SharedConfig]] = GRPOConfig

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        reward_funcs: Any = None,
        args: SharedConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        reward_processing_classes: Any = None,
        callbacks: Sequence[Callback] | None = None,
        **more: Any,
    ) -> None:
        rest = checked_more(more)
        self.args = checked_args(args, self.config, model)
        prepare_process(self.args)
        self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
        brought = Brought(
            model, checked_tokenizer(processing_class), rest["peft_config"], _tell, self.args.router_aux_loss_coef == 0
        )
        batches = batches_of(self.args)
        self._worlds = worlds_given(rest["tools"], rest["environment_factory"])
        owned = rest["environment_factory"] is not None and not several(self._worlds)
        self._rows = training_rows(train_dataset, self.args, batches, owned=owned)
        rewards = reward_functions(reward_funcs, reward_processing_classes, self.args, self._worlds.values())
        loaded, made = self._recipe(brought, rewards)
        self._flow = Flow(
            self.args, handler_of(self.args, callbacks), batches, len(self._rows), loaded.recipe.train.steps
        )
        self._flow.acts = self
        self._loaded = loaded
        own = rest["rollout_func"]
        self._given = replace(
            made,
            policy=brought.policy,
            companion=self._flow,
            optimizer=own_optimizer(rest["optimizers"]),
            sampler=None if own is None else OwnRollouts(own, self, lambda: self._parts.policy),
        )
        self._core = Trainer.from_recipe(loaded, LoggingReporter(), self._given)
        self._parts = self._core.parts
        self.processing_class = self._parts.policy.tokenizer
        self._flow.handler.model, self._flow.handler.processing_class = self.model, self.processing_class
        self.run: RunFolder | None = None
        """The run folder of the last `train`."""
        self._begun = False
        self._flow.control = self._flow.handler.on_init_end(self.args, self.state, self.control)

    def _recipe(self, brought: Brought, rewards: Sequence[Any]) -> tuple[LoadedRecipe, Given]:
        """What the script says as a recipe, so that the run records what it was."""
        translated = translate(self.args, len(self._rows))
        settings, instead = affordable(translated.settings, self.args, OptimizerSection)
        for sentence in (*translated.said, *([instead] if instead else [])):
            _tell(sentence)
        settings["task.prompt_style"] = prompt_style(self._rows)
        settings["run.name"] = free_name(Path(settings["run.folder"]), settings["run.name"])
        if is_stream(self.train_dataset):
            settings["problems.order"] = "data"  # the stream has an order already
        settings |= turns_settings(self.args, self._worlds)
        world = self._worlds.get("")
        task = task_of_rows(self._rows, self._worlds) if several(self._worlds) else self._rows
        loaded, given = recipe_of(brought.name or IN_MEMORY, task, rewards, with_world(settings, world), None)
        return loaded, replace(given, world=world)

    # --- what scripts look at

    @property
    def model(self) -> PreTrainedModel | PeftModel:
        """What is trained: peft's model where there are adapters."""
        policy = self._parts.policy
        return policy.model if policy.adapted is None else policy.adapted

    @property
    def state(self) -> Progress:
        """How far training is, with `log_history`."""
        return self._flow.state

    @property
    def control(self) -> TrainerControl:
        """The flags that callbacks set."""
        return self._flow.control

    def is_world_process_zero(self) -> bool:
        """There is one process."""
        return True

    is_local_process_zero = is_world_process_zero
    metrics_format, log_metrics, save_metrics, save_state = metrics_format, log_metrics, save_metrics, save_state

    def add_callback(self, callback: Callback) -> None:
        """Add it, behind those that are there."""
        self._flow.handler.add_callback(callback)

    def pop_callback(self, callback: Callback) -> TrainerCallback | None:
        """Take it out and return it."""
        return self._flow.handler.pop_callback(callback)

    def remove_callback(self, callback: Callback) -> None:
        """Take it out."""
        self._flow.handler.remove_callback(callback)

    def log(self, logs: Mapping[str, float], start_time: float | None = None) -> None:
        """A row of `state.log_history`, and `on_log`."""
        self._flow.log(logs)

    # --- what scripts do

    def train(self, resume_from_checkpoint: str | bool | None = None) -> TrainOutput:
        """Train to `max_steps`, or to what a callback wants; the model is the trained one afterwards."""
        if resume_from_checkpoint:
            self._go_on(asked_for(Path(self.args.output_dir or "."), resume_from_checkpoint))
        elif self._begun:  # whether or not it came to its end
            section = self._loaded.recipe.run
            self._again(free_name(Path(section.folder), section.name))
        self._begun = True
        self.run = self._core.train()
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint:
            place, _ = read_checkpoint(Path(self.state.best_model_checkpoint))
            take_weights(self._parts.policy, place.checkpoint())
        summary = self._flow.end()
        if self.args.push_to_hub:
            self.push_to_hub()
        return TrainOutput(self.state.global_step, summary["train_loss"], summary)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> Metrics:
        """Sample and grade `eval_dataset`, log the metrics and return them."""
        metrics = run_to_end(self._examined(self.eval_dataset if eval_dataset is None else eval_dataset))
        named = {f"{metric_key_prefix}{name.removeprefix('eval')}": value for name, value in metrics.items()}
        self._flow.log(named)
        self._flow.control = self._flow.handler.on_evaluate(self.args, self.state, self.control, named)
        return named

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the model, or its adapters alone, and the tokenizer, as transformers and peft load them."""
        save_policy(self._parts.policy, Path(output_dir or self.args.output_dir or "."))

    def push_to_hub(
        self, commit_message: str | None = "End of training", blocking: bool = True, revision: str | None = None
    ) -> str:
        """Save the model and upload it; `hub_model_id` says as what."""
        self.save_model()
        message = commit_message or "End of training"
        return hub.push(Path(self.args.output_dir or "."), self.args, message=message, revision=revision)

    # --- what callbacks ask for

    async def examine(self) -> Metrics:
        """Evaluate on `eval_dataset`."""
        return await self._examined(self.eval_dataset)

    def save_checkpoint(self, step: int) -> bool:
        """`output_dir/checkpoint-N`, and the upload where every save is uploaded."""
        kept = None if self._flow.keep is None else self._flow.keep()
        if kept is None:
            return False
        folder = Path(self.args.output_dir or ".").absolute()
        run, path = kept.absolute().parents[1], folder / f"checkpoint-{step}"
        place = Place(run, int(kept.name.rpartition("_")[2]))
        if self.state.best_global_step == step:
            self.state.best_model_checkpoint = str(path)
            RunFolder.open(run).checkpoints.point("best", place.step)
        write_checkpoint(path, self._parts.policy, self.state, place)
        thin_out(folder, self.args.save_total_limit, self.state.best_model_checkpoint)
        if self.args.push_to_hub and self.args.hub_strategy == "every_save":
            self.push_to_hub(f"Training in progress, step {step}")
        return True

    def keep(self, step: int, groups: Sequence[Group]) -> None:
        """`log_completions`."""
        args = self.args
        if args.log_completions:
            write_completions(Path(args.output_dir or ".") / "completions", step, groups)
            once = args.log_unique_prompts or bool(args.wandb_log_unique_prompts)
            print_completions(step, groups, count=args.num_completions_to_print, once_a_prompt=once)

    async def _examined(self, dataset: Any) -> Metrics:
        chosen = evaluation_rows(dataset, self.args)
        if not chosen:
            raise TaskError("there is nothing to evaluate on: give eval_dataset")
        parts, state = self._parts, TrainerState(self.state.global_step, self.state.max_steps, self.state.epoch or 0.0)
        size = self.args.num_generations_eval or self.args.num_generations or 1
        return joined(
            [
                await examine(parts, self._fitted(parts, rows, prefix), group_size=size, state=state, prefix=prefix)
                for prefix, rows in chosen.items()
            ]
        )

    def _fitted(self, parts: Parts, rows: Rows, prefix: str) -> Any:
        return fitted(problems_of_rows(rows, f"{prefix}eval", self._worlds), parts.task, parts.policy, parts.recipe)

    def _go_on(self, path: Path) -> None:
        """The run of a checkpoint, from there."""
        place, state = read_checkpoint(path)
        if place.run.parent != Path(self._loaded.recipe.run.folder).absolute():
            raise RunError(f"{path} belongs to {place.run}: set output_dir to {place.run.parents[1]} to go on with it")
        go_back_to(place)
        self._again(place.run.name)
        self._flow.take_up(state)

    def _again(self, name: str) -> None:
        """A run of this name by the same script, with the weights as they are."""
        section = self._loaded.recipe.run
        recipe = self._loaded.recipe.model_copy(update={"run": section.model_copy(update={"name": name})})
        policy, handler = self._parts.policy, self._flow.handler
        self._flow = Flow(self.args, handler, self._flow.batches, len(self._rows), recipe.train.steps)
        self._flow.acts = self

        def as_it_is(recipe: Recipe) -> Policy:
            return policy

        given = replace(self._given, policy=as_it_is, companion=self._flow)
        self._core = Trainer.from_recipe(replace(self._loaded, recipe=recipe), LoggingReporter(), given)
        self._parts = self._core.parts


class RLOOTrainer(GRPOTrainer):
    """REINFORCE leave-one-out with the same arguments: its configuration is `RLOOConfig`."""

    config: ClassVar[type[SharedConfig]] = RLOOConfig


def _tell(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=4)
