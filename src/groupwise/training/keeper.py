"""Saves a run while it goes on, so that another process can go on from there, and takes it up again.

    keeper = Keeper(parts, run, learner, say)
    state = keeper.take_up()              None, or what was remembered when the newest whole checkpoint was made
    keeper.remember(step, state)          after each step: cheap, tensors are referred to, not copied
    keeper.save()                         that step; written in the background, unless it is waited for
    keeper.close()                        what is remembered and not saved yet, if the weights are still those

A disk that is full stops the saving and not the training. Weights that are not finite are never saved.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from groupwise.errors import LearnerError, RunError
from groupwise.learner.learner import Learner
from groupwise.models.fingerprint import fingerprint
from groupwise.models.policy import Policy
from groupwise.models.written import WrittenForm, not_finite, written_form
from groupwise.runs.checkpoints.background import Background
from groupwise.runs.checkpoints.contents import as_written
from groupwise.runs.checkpoints.store import Checkpoint, Contents
from groupwise.runs.checkpoints.tensors import read_tensors
from groupwise.runs.checkpoints.tree import Tree
from groupwise.runs.folder import RunFolder
from groupwise.training.build import Parts


@dataclass(frozen=True, slots=True)
class _Remembered:
    """The end of a step, and after how many updates that was."""

    step: int
    state: Tree
    updates: int


class Keeper:
    """Of one run. `say` is told what the user should know."""

    def __init__(self, parts: Parts, run: RunFolder, learner: Learner, say: Callable[[str], None]) -> None:
        self._parts, self._run, self._learner, self._say = parts, run, learner, say
        self._section = parts.recipe.checkpoints
        self._store = run.checkpoints
        self._beside = Background()
        self._remembered: _Remembered | None = None
        self._saved: int | None = None
        self._costs = {"saved": 0, "seconds_stalled": 0.0, "seconds_written": 0.0}
        self._begun_with = fingerprint(self._unwritten())

    @cached_property
    def _form(self) -> WrittenForm:
        return written_form(self._parts.policy)

    # --- saving ------------------------------------------------------------------------------------------------------

    def remember(self, step: int, state: Tree) -> None:
        """The end of a step, and the learner's part of it."""
        whole = {**state, "learner": self._learner.state(), "facts": self._facts()}
        self._remembered = _Remembered(step, whole, self._learner.optimizer.updates)
        if error := self._beside.outcome():
            self._failed(error)

    def may_drop(self) -> bool:
        """Whether the weights are those of the step that is remembered: what came after it may be thrown away."""
        return self._remembered is None or self._remembered.updates == self._learner.optimizer.updates

    def is_due(self, step: int) -> bool:
        """Whether it is time to save."""
        return bool(self._section.every) and step % self._section.every == 0

    def save(self, *, best: bool = False, waited_for: bool = False) -> None:
        """Save the step that is remembered. What is waited for is written at once, and need not be copied for that:
        nothing changes meanwhile, not even if the waiting is broken off."""
        assert self._remembered is not None
        start = time.perf_counter()
        if self._remembered.step == self._saved:
            if best:
                self.point_to_best(self._remembered.step)
            return
        self._refuse_what_is_not_finite()
        remembered = self._remembered
        if error := self._beside.finish_piece():
            self._failed(error)
        try:
            self._run.patience.catch_up()  # a checkpoint whose rows are not there could not be gone on from
        except OSError as error:
            self._saved = remembered.step
            self._failed(error)
            return
        beside = self._section.background and not waited_for
        contents = self._contents(remembered.state, copied=beside)
        write = partial(self._write, remembered.step, contents, best)
        self._saved = remembered.step
        if beside:
            self._beside.start(write)
        else:
            self._tried(write)
        self._costs["saved"] += 1
        self._costs["seconds_stalled"] += time.perf_counter() - start

    def save_and_wait(self) -> Path | None:
        """Save the step that is remembered; its folder once it is whole, None if it could not be written."""
        assert self._remembered is not None
        self.save(waited_for=True)
        if error := self._beside.finish_piece():
            self._failed(error)
        step = self._remembered.step
        return self._store.path(step) if self._store.pointed("latest") == step else None

    def point_to_best(self, step: int) -> None:
        """The step that was saved last is the best so far."""
        if error := self._beside.finish_piece():
            self._failed(error)
        self._tried(partial(self._store.point, "best", step))

    def close(self, seconds: float) -> None:
        """Save what is remembered and not saved, unless the weights have moved since; wait until all is written, and
        write down what the run has taken so far."""
        remembered = self._remembered
        if remembered is not None and remembered.step != self._saved and self.may_drop():
            if (name := not_finite(self._parts.policy)) is None:
                self.save(waited_for=True)
            else:
                self._say(f"step {remembered.step} is not saved: {name} holds numbers that are not finite")
        start = time.perf_counter()
        if error := self._beside.finish():
            self._failed(error)
        self._costs["seconds_stalled"] += time.perf_counter() - start
        self._tried(lambda: self._run.record({"checkpoints": self._costs, "seconds": seconds}))

    # --- going on ----------------------------------------------------------------------------------------------------

    def take_up(self) -> Tree | None:
        """Put weights and learner back to the newest whole checkpoint; returns the rest of what was remembered."""
        found = self._store.newest(set_aside=True)
        for fault in found.faults:
            self._say(f"a damaged checkpoint is not used: {fault}. It was renamed, and the one before it is taken")
        if found.checkpoint is None:
            if found.faults:
                raise RunError(
                    f"no checkpoint in {self._store.folder} is whole: {'; '.join(found.faults)}. Ways out: put back "
                    "what is missing, choose another name (run.name=...), or delete that folder to begin at step 0"
                )
            return None
        return self._go_on_from(found.checkpoint)

    def go_back(self, up_to: int) -> Tree | None:
        """Put weights and learner back to the newest whole checkpoint of the steps up to this one, and forget those
        that came after it; None, and nothing is changed, if there is none."""
        if error := self._beside.finish():
            self._failed(error)
        checkpoint = self._store.newest(up_to=up_to).checkpoint
        return None if checkpoint is None else self._go_on_from(checkpoint)

    def look_back(self, up_to: int) -> Tree | None:
        """The same, and nothing in the run's folder is changed: for who only wants to see."""
        checkpoint = self._store.newest(up_to=up_to).checkpoint
        return None if checkpoint is None else self._restore(checkpoint)

    def _go_on_from(self, checkpoint: Checkpoint) -> Tree:
        state = self._restore(checkpoint)
        self._saved = checkpoint.step
        self._store.forget_after(checkpoint.step)
        self._remembered = _Remembered(checkpoint.step, state, self._learner.optimizer.updates)
        return state

    def slow_down(self, factor: float) -> None:
        """From now on learn at this share of the recipe's learning rate."""
        self._learner.optimizer.slowed = factor

    def _restore(self, checkpoint: Checkpoint) -> Tree:
        state = checkpoint.state()
        with as_written(checkpoint.path):
            self._take_over(state, checkpoint)
        return state

    def _take_over(self, state: Tree, checkpoint: Checkpoint) -> None:
        facts: dict[str, Any] = state["facts"]
        if facts["begun_with"] != self._begun_with:
            raise RunError(
                f"{checkpoint.path} belongs to a run that began with other weights than {self._parts.recipe.model.id} "
                "has now. Those that are not trained are not in a checkpoint: put the model back that the run began "
                "with, or choose another name (run.name=...)"
            )
        for name, version in self._versions().items():
            if facts["versions"].get(name) != version:
                self._say(
                    f"{name} is {version} now and was {facts['versions'].get(name)}: numbers may round differently"
                )
        _take_weights(self._form, checkpoint, state)
        self._learner.restore(state["learner"])

    # -----------------------------------------------------------------------------------------------------------------

    def _contents(self, state: Tree, *, copied: bool) -> Contents:
        form, copy = self._form, partial(_in_host_memory, copied=copied)
        files = {f"model/{name}": content for name, content in form.files.items()}
        weights = {name: copy(tensor) for name, tensor in form.tensors().items()}
        contents = Contents(files, {f"model/{form.weights_file}": weights})
        contents = contents.with_state({**state, "weights": form.others()})
        state_file = {name: copy(tensor) for name, tensor in contents.tensors["state.safetensors"].items()}
        return Contents(contents.files, {**contents.tensors, "state.safetensors": state_file})

    def _write(self, step: int, contents: Contents, best: bool) -> None:
        start = time.perf_counter()
        self._store.write(step, contents)
        if best:
            self._store.point("best", step)
        self._store.keep_only(self._section.keep)
        self._costs["seconds_written"] += time.perf_counter() - start

    def _tried(self, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """A disk may fail us; anything else is a mistake of ours."""
        if not isinstance(error, OSError):
            raise error
        last = self._store.last_whole()
        kept = "there is none yet" if last is None else f"the last good one is that of step {last}"
        self._say(f"ALARM: no checkpoint could be written, training goes on without: {error}; {kept}")

    def _refuse_what_is_not_finite(self) -> None:
        assert self._remembered is not None
        if (name := not_finite(self._parts.policy)) is not None:
            self._saved = self._remembered.step  # not tried again while everything is closed
            raise LearnerError(
                f"after step {self._remembered.step} {name} holds numbers that are not finite; nothing is saved of it. "
                "Usual causes: a learning rate that is far too high, fp16 where bf16 or fp32 is needed"
            )

    def _unwritten(self) -> dict[str, Tensor]:
        """The weights that no checkpoint holds, and that must be the same when the run goes on."""
        reference, policy = self._learner.reference, self._parts.policy
        beginning = (policy.beginning or {}) if reference is not None and reference.stays else {}
        return {
            name: beginning.get(name, parameter)
            for name, parameter in policy.model.named_parameters()
            if name in beginning or not parameter.requires_grad
        }

    def _facts(self) -> dict[str, Any]:
        policy = self._parts.policy
        recipe = hashlib.sha256(self._parts.recipe.model_dump_json(exclude={"run"}).encode()).hexdigest()
        return {
            "begun_with": self._begun_with,
            "recipe": recipe,
            "versions": self._versions(),
            "device": str(policy.device),
            "attention": policy.attention,
            "sandbox": self._run.identity.get("sandbox"),
        }

    def _versions(self) -> dict[str, Any]:
        identity = self._run.identity
        return {
            "groupwise": identity.get("groupwise"),
            "python": identity.get("python"),
            **identity.get("versions", {}),
        }


def take_weights(policy: Policy, checkpoint: Checkpoint) -> None:
    """Give a policy the weights of a checkpoint, and nothing else of it."""
    _take_weights(written_form(policy), checkpoint, checkpoint.state())


def _take_weights(form: WrittenForm, checkpoint: Checkpoint, state: Tree) -> None:
    form.restore(read_tensors(checkpoint.model / form.weights_file), state["weights"])


def _in_host_memory(tensor: Tensor, *, copied: bool) -> Tensor:
    """In one piece; a copy where training will go on changing it."""
    there = tensor.detach().to("cpu").contiguous()
    return there.clone() if copied and there.data_ptr() == tensor.data_ptr() else there
