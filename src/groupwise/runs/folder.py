"""The run folder: the truth about a run, in plain files. Everything else reads it.

    runs/<name>/
      run.json                  what it is: versions, machine, command, seed, status
      recipe.toml               the resolved recipe, each value with its origin
      metrics.jsonl             a row of numbers a step
      rollouts/000041.parquet   every rollout of a step
      alarms.jsonl              a row an alarm
      bad_step/000041/          a step that was refused: batch, weights, what was wrong
      evals.jsonl               a row an evaluation
      evals/000050.parquet      every answer of an evaluation
      checkpoints/              what a run goes on from (see checkpoints/)
      model/                    what was trained, once training has ended
      log                       what was said along the way
      lock                      who is writing, while it runs
      tensorboard/, wandb/      where those trackers keep their files, if asked for

    with enter(Path("runs"), "demo", loaded, "train", {"device": "cpu"}) as run:       # status: running (entrance.py)
        run.metrics.append(1, {"reward": 0.25})
        run.save_rollouts(1, groups)
                                                            # finished, or interrupted (Ctrl-C), or failed (an error)
    RunFolder.open(Path("runs/demo")).recipe().recipe.seed

Files are appended to line by line or written beside and renamed, so a kill leaves at most a torn last line, which
readers skip. No secret is written: see `redaction.py`.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias, cast

from groupwise.config import LoadedRecipe, load_recipe
from groupwise.config.toml_text import toml_value
from groupwise.errors import RunError
from groupwise.runs import disk, lock, names
from groupwise.runs.checkpoints.store import Checkpoints
from groupwise.runs.evaluations import EvaluatedAnswer, read_answers, write_answers
from groupwise.runs.files import cannot_write, read_file, read_rows, to_json, write_text
from groupwise.runs.handed_on import made_here
from groupwise.runs.identity import identity as machine_identity
from groupwise.runs.identity import now
from groupwise.runs.metrics import MetricsLog
from groupwise.runs.patience import Patience
from groupwise.runs.redaction import redact_text, redacted
from groupwise.runs.rollouts import RolloutRow, read_rollouts, write_rollouts
from groupwise.runs.text import safe_text
from groupwise.types import Group

Status: TypeAlias = Literal["running", "finished", "interrupted", "failed"]
_FORMAT = 1
_LARGEST_RECORD = 16 << 20
_TEXTS = ("id", "status", "verb", "recipe_folder")
_KINDS = {"format": int, "attempts": list, "versions": dict, **dict.fromkeys(_TEXTS, str)}
"""Of what is read of `run.json` again; anybody may have edited it."""


class RunFolder:
    """A folder of one run, to write (`entrance.enter`) or to read and add evaluations to (`open`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.patience = Patience()
        """With a full disk, once training has begun."""
        self.metrics = MetricsLog(path / "metrics.jsonl", self.patience.append)

    def begin(self, name: str, loaded: LoadedRecipe, identity: Mapping[str, Any]) -> None:
        """Write what is known before the first step. `identity` adds to `run.json` what only the caller knows
        (`{"device": "cuda:0", ...}`). The folder is there, empty and locked: see `entrance.py`."""
        write_text(self.path / "recipe.toml", redact_text(loaded.to_toml()))
        facts = {
            "format": _FORMAT,
            "id": uuid.uuid4().hex,
            "name": name,
            "status": "running",
            "started": now(),
            "ended": None,
            "seed": loaded.recipe.seed,
            "model_revision": loaded.recipe.model.revision,
            "home": str(self.path.resolve()),
            "trust_remote_code": loaded.recipe.model.trust_remote_code,
            "recipe_folder": str(loaded.folder.absolute()),
            **machine_identity(sys.argv),
        }
        self.record({**facts, **identity})

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """A run that exists, running or not."""
        run = cls(path)
        if not run._record.is_file():
            raise RunError(names.not_a_run(path))
        written = run.identity.get("format")
        if not isinstance(written, int) or written > _FORMAT:
            raise RunError(f"{path} was written by another groupwise (format {written}, not {_FORMAT}): use that one")
        return run

    # --- writing -----------------------------------------------------------------------------------------------------

    @property
    def checkpoints(self) -> Checkpoints:
        """What a run goes on from."""
        return Checkpoints(self.path / "checkpoints", str(self.identity.get("id", "")))

    @property
    def model_path(self) -> Path:
        """Where the trained model is written."""
        return self.path / "model"

    def record(self, facts: Mapping[str, Any]) -> None:
        """Add facts to `run.json` (which attention was chosen, how many parameters, ...)."""
        known = self.identity if self._record.exists() else {}
        write_text(self._record, to_json(redacted({**known, **facts}), indent=2) + "\n")

    def save_rollouts(
        self, step: int, groups: Sequence[Group], extra: Mapping[str, Sequence[Any]] | None = None
    ) -> Path:
        """Write the rollouts of a step; `extra` holds one value per rollout under each name, groups in order."""
        path = self.path / "rollouts" / f"{step:06d}.parquet"
        try:
            _make(path.parent)
            write_rollouts(path, step, groups, extra)
        except RunError as error:
            if not self.patience.bears(error, f"the rollouts of step {step} are not kept"):
                raise
        return path

    def save_evaluation(
        self, step: int, label: str, result: Mapping[str, Any], answers: Sequence[EvaluatedAnswer]
    ) -> Path:
        """Write every answer of an evaluation and add its result to `evals.jsonl`. Earlier ones are kept.

        Example: `run.save_evaluation(0, "before", {"accuracy": 0.12, "low": 0.08, "high": 0.18}, answers)`
        """
        folder = self.path / "evals"
        path, again = folder / f"{step:06d}.parquet", 2
        while path.exists():
            path, again = folder / f"{step:06d}-{again}.parquet", again + 1
        try:
            _make(folder)
            write_answers(path, step, answers)
        except RunError as error:
            if not self.patience.bears(error, f"the answers of the evaluation {label!r} are not kept"):
                raise
            result = {**result, "answers": None}
        row = {"step": step, "label": label, "time": now(), "answers": f"evals/{path.name}", **result}
        self.patience.append(self.path / "evals.jsonl", row)
        return path

    def log(self, text: str) -> None:
        """Append to the run's log, with the time, without secrets, and safe to print."""
        lines = safe_text(redact_text(text)).split("\n")
        try:
            disk.append(self.path / "log", (now() + "  " + "\n    ".join(lines) + "\n").encode())
        except OSError as error:
            if not self.patience.is_silent_about(error):
                raise RunError(cannot_write(self.path / "log", error)) from error

    def close(self, status: Status) -> None:
        """Say how it ended and give the folder free."""
        try:
            self.record({"status": status, "ended": now()})
        finally:
            lock.release(self._lock)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.close("finished")
            return
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
        # Were the disk full, this would hide the error that matters.
        with suppress(OSError):
            if not interrupted:
                self.record({"error": safe_text(f"{type(error).__name__}: {error}")[:2000]})
        with suppress(OSError):
            self.close("interrupted" if interrupted else "failed")

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def identity(self) -> dict[str, Any]:
        """All of `run.json`."""
        try:
            facts: Any = json.loads(read_file(self._record, most=_LARGEST_RECORD))
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"cannot read {self._record}: {error}") from error
        if not isinstance(facts, dict):
            raise RunError(f"{self._record} is not a record of a run")
        known = cast("dict[str, Any]", facts)
        for name, kind in _KINDS.items():
            if known.get(name) is not None and not isinstance(known[name], kind):
                raise RunError(f"{self._record} was damaged: {name} is {safe_text(repr(known[name])[:80])}")
        return known

    @property
    def status(self) -> str:
        """`running`, `finished`, `interrupted` or `failed`; a run whose process was killed counts as interrupted."""
        status = str(self.identity.get("status"))
        killed = lock.owner(self._lock) is None or lock.is_left_behind(self._lock)
        return "interrupted" if status == "running" and killed else status

    def recipe(self, overrides: Sequence[str] = ()) -> LoadedRecipe:
        """The recipe it was made with; relative paths in it start where they started then."""
        path = self.path / "recipe.toml"
        if path.is_fifo():  # it would be waited for
            raise RunError(f"{path} is a pipe, where a file belongs: put the recipe of the run back")
        loaded = load_recipe(path, overrides)
        return replace(loaded, folder=Path(str(self.identity.get("recipe_folder", loaded.folder))))

    def trained_recipe(self, overrides: Sequence[str] = ()) -> LoadedRecipe:
        """The same recipe with the model that was trained in place of the one that training began with.

        Without LoRA: an adapter that was trained is merged when it is loaded. Example:
        `Trainer.from_recipe(RunFolder.open(Path("runs/demo")).trained_recipe(["evaluation.problems=500"])).evaluate()`
        """
        trained = toml_value(str(self.trained_model().absolute()))
        # Of the model that training began with: where its code comes from, and which.
        began = ["model.revision=none", "model.trust_remote_code=false"]
        return self.recipe([f"model.id={trained}", *began, "lora=none", *overrides])

    def check_own(self) -> None:
        """Raise unless this run was made here, in this folder of this machine: the functions that its recipe names are
        run only then. It is no proof against one who knows both; it is there for runs that were handed on."""
        facts, folder = self.identity, Path(str(self.identity.get("recipe_folder", "")))
        if not made_here(self.path, facts) or not folder.is_absolute() or folder != folder.resolve():
            raise RunError(
                f"{self.path} was not made here (but on {facts.get('host')!r}, in {facts.get('home')!r}), and its "
                "recipe names functions, which are code of whoever made it. Read them, then train or evaluate with a "
                "recipe of your own that names them"
            )

    def trained_model(self) -> Path:
        """The folder of the trained model, or of what there is of it so far; an error if there is nothing."""
        written = self.model_path.is_dir() and any(self.model_path.iterdir())
        if written and self.status == "finished":
            return self.model_path
        found = self.checkpoints.newest().checkpoint
        if found is None and written:
            return self.model_path
        if found is None:
            raise RunError(
                f"{self.path} has no trained model (its status is {self.status}): a model is written when training "
                "ends and with every checkpoint (checkpoints.every); let it go on, or name the folder of another run "
                "or of a model"
            )
        return found.model

    def changes(self) -> list[str]:
        """The settings that were changed when the run was last taken up, in words."""
        attempts: Any = self.identity.get("attempts") or [{}]
        last = attempts[-1]
        return [str(change) for change in last.get("changes") or []] if isinstance(last, dict) else []

    def rollouts(self, step: int) -> list[RolloutRow]:
        """The rollouts of a step."""
        return read_rollouts(self.path / "rollouts" / f"{step:06d}.parquet")

    def rollout_steps(self) -> list[int]:
        """The steps whose rollouts are there."""
        return sorted(int(path.stem) for path in (self.path / "rollouts").glob("*.parquet") if path.stem.isdigit())

    def evaluations(self) -> list[dict[str, Any]]:
        """The rows of `evals.jsonl`, oldest first."""
        return read_rows(self.path / "evals.jsonl")

    def answers(self, evaluation: Mapping[str, Any]) -> list[EvaluatedAnswer]:
        """Every answer of an evaluation, given its row."""
        return read_answers(self.path / "evals" / Path(str(evaluation["answers"])).name)

    # --- where things are --------------------------------------------------------------------------------------------

    @property
    def _record(self) -> Path:
        return self.path / "run.json"

    @property
    def _lock(self) -> Path:
        return self.path / "lock"


def _make(folder: Path) -> None:
    try:
        disk.make_folder(folder)
    except OSError as error:
        raise RunError(cannot_write(folder, error)) from error
