"""The run as transformers' callbacks know it: events, the control flags that they set, and `state.log_history`.

    on_train_begin
      on_epoch_begin
        on_step_begin  (a step of ours)  on_step_end
          -> should_log: on_log   should_evaluate: on_evaluate   should_save: on_save   should_training_stop
      on_epoch_end
    on_train_end

`state.global_step` counts optimizer steps, as in TRL. Where a step of ours is several of them, their events come one
after the other when it is done: a batch of groups is used to its end, whoever wants to stop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from transformers import TrainerControl
from transformers import TrainerState as Progress
from transformers.trainer_callback import CallbackHandler

from groupwise.compat.batches import Batches
from groupwise.compat.config import SharedConfig
from groupwise.compat.metrics import averaged, step_metrics, tokens_of
from groupwise.errors import RecipeError
from groupwise.rewards import TrainerState
from groupwise.training.companion import Keep
from groupwise.types import Group

Metrics = dict[str, float | None]


class Acts(Protocol):
    """What a flow asks of its trainer when a flag is up."""

    async def examine(self) -> Metrics:
        """Evaluate and return TRL's metrics."""
        ...

    def save_checkpoint(self, step: int) -> bool:
        """Write a checkpoint; whether the disk took it."""
        ...

    def keep(self, step: int, groups: Sequence[Group]) -> None:
        """Write and print completions, if that was asked for."""
        ...


class Flow:
    """A companion of the run that speaks to callbacks."""

    def __init__(self, args: SharedConfig, handler: CallbackHandler, batches: Batches, rows: int, steps: int) -> None:
        self.args, self.handler, self.batches = args, handler, batches
        self.control = TrainerControl()
        self.state = Progress(max_steps=steps * batches.optimizer_steps, num_train_epochs=1)
        self.acts: Acts | None = None
        self._an_epoch = max(rows / batches.prompts * batches.optimizer_steps, 1e-9)
        self.state.num_train_epochs = -(-self.state.max_steps // max(round(self._an_epoch), 1))
        self.state.train_batch_size = args.per_device_train_batch_size
        self.state.compute_steps(args, self.state.max_steps)
        self._rows: list[dict[str, float]] = []
        self._losses: list[float] = []
        self._groups: Sequence[Group] = ()
        self._logged = 0
        self._began = time.perf_counter()
        self.keep: Keep | None = None
        """How to save the run as it stands, once it has begun."""

    def take_up(self, state: Progress) -> None:
        """Be as far as a checkpoint was; how often to log, evaluate and save is what the script says now."""
        state.max_steps, state.num_train_epochs = self.state.max_steps, self.state.num_train_epochs
        state.train_batch_size = self.state.train_batch_size
        state.compute_steps(self.args, state.max_steps)
        self.state = state

    # --- the companion

    def may_keep(self, keep: Keep) -> None:
        """For the checkpoints that flags ask for."""
        self.keep = keep

    async def begins(self, state: TrainerState) -> None:
        """`on_train_begin` and `on_epoch_begin` where it is time for them, and `on_step_begin`."""
        if not self._losses:
            self._began = time.perf_counter()
            self._be_at((state.global_step - 1) * self.batches.optimizer_steps)
            self._tell(self.handler.on_train_begin)
            if self.args.eval_on_start:
                await self.evaluate()
        if self._epoch_turns(self.state.global_step) or not self._losses:
            self._tell(self.handler.on_epoch_begin)
        self._tell(self.handler.on_step_begin)

    async def saw(self, groups: Sequence[Group]) -> None:
        """Keep them for the metrics of the step."""
        self._groups = groups
        self.state.num_input_tokens_seen += tokens_of(groups)

    async def goes_on(self, state: TrainerState, metrics: Mapping[str, float]) -> bool:
        """Tell of each optimizer step and do what the flags ask for."""
        self._rows.append(step_metrics(self._groups, metrics, int(self.state.num_input_tokens_seen)))
        for turn in range(self.batches.optimizer_steps):
            if turn:
                self._tell(self.handler.on_step_begin)
            self._losses.append(metrics.get("loss", math.nan))  # of a step that a guard skipped there is none
            self.state.global_step += 1
            self.state.epoch = self.state.global_step / self._an_epoch
            self._tell(self.handler.on_step_end)
            await self._act()
            if self._epoch_turns(self.state.global_step):
                self._tell(self.handler.on_epoch_end)
                await self._act()
        return not self.control.should_training_stop

    # --- what flags ask for

    async def _act(self) -> None:
        assert self.acts is not None
        if self.control.should_log and self.state.global_step > self._logged:
            logs = averaged(self._rows) if self._rows else {}
            since = self._losses[self._logged - self.state.global_step :]
            logs["loss"] = _mean(since)
            self._rows, self._logged = [], self.state.global_step
            self.log(logs)
            self.acts.keep(self.state.global_step, self._groups)
        if self.control.should_evaluate:
            await self.evaluate()
        if self.control.should_save and self.acts.save_checkpoint(self.state.global_step):
            self._tell(self.handler.on_save)

    async def evaluate(self) -> Metrics:
        """Evaluate, log it, and note whether it is the best so far."""
        assert self.acts is not None
        metrics = await self.acts.examine()
        self.log(dict(metrics))
        self.control = self.handler.on_evaluate(self.args, self.state, self.control, metrics)
        self._note_best(metrics)
        return metrics

    def log(self, logs: Mapping[str, Any]) -> None:
        """A row of `state.log_history`, and `on_log`."""
        row = {**logs, "epoch": self.state.epoch}
        self.state.log_history.append({**row, "step": self.state.global_step})
        self.control = self.handler.on_log(self.args, self.state, self.control, row)

    def end(self) -> dict[str, float]:
        """`on_train_end`, after the row that sums the run up, which is returned."""
        seconds = time.perf_counter() - self._began
        steps = len(self._losses)
        summary = {
            "train_runtime": seconds,
            "train_samples_per_second": steps * self.args.per_device_train_batch_size / seconds,
            "train_steps_per_second": steps / seconds,
            "total_flos": 0.0,
            "train_loss": _mean(self._losses),
        }
        self.log(summary)
        self._tell(self.handler.on_train_end)
        return summary

    def _be_at(self, done: int) -> None:
        """So many optimizer steps are done: none, or what the run goes on from."""
        self.state.global_step = self._logged = done
        self.state.epoch = done / self._an_epoch
        self.state.log_history = [row for row in self.state.log_history if row["step"] <= done]

    def _tell(self, event: Callable[..., TrainerControl]) -> None:
        self.control = event(self.args, self.state, self.control)

    def _epoch_turns(self, step: int) -> bool:
        """Whether an epoch ends, and the next begins, at this optimizer step."""
        return step == 0 or int(step / self._an_epoch + 1e-6) > int((step - 1) / self._an_epoch + 1e-6)

    def _note_best(self, metrics: Mapping[str, Any]) -> None:
        name = self.args.metric_for_best_model
        if name is None:
            return
        name = name if name.startswith("eval_") else f"eval_{name}"
        if metrics.get(name) is None:
            raise RecipeError(
                f"metric_for_best_model = {self.args.metric_for_best_model!r}: an evaluation has no {name!r}. It has "
                f"{', '.join(metrics)}"
            )
        value, best = metrics[name], self.state.best_metric
        if best is None or (value > best if self.args.greater_is_better else value < best):
            self.state.best_metric, self.state.best_global_step = value, self.state.global_step
            self.control.should_save |= self.args.save_strategy == "best"


def _mean(losses: Sequence[float]) -> float:
    """Of the steps that were made."""
    known = [loss for loss in losses if not math.isnan(loss)]
    return sum(known) / len(known) if known else math.nan
