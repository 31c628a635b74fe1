"""`output_dir/checkpoint-N`: the model as plain transformers or peft loads it, how far training was, and which
checkpoint of the run (`output_dir/runs/NAME/checkpoints`) training can go on from, to the last bit.

    checkpoint-6/  model.safetensors  config.json  tokenizer.json  ...
                   trainer_state.json                                 transformers' own
                   groupwise.json                                     {"run": "runs/mine", "step": 3}
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerState as Progress

from groupwise.errors import RunError
from groupwise.models.policy import Policy
from groupwise.models.save import save_policy
from groupwise.runs.checkpoints.store import Checkpoint
from groupwise.runs.folder import RunFolder

_NAME = re.compile(r"checkpoint-(\d+)")
_OURS, _THEIRS = "groupwise.json", "trainer_state.json"


@dataclass(frozen=True, slots=True)
class Place:
    """A run and one of its steps."""

    run: Path
    step: int

    def checkpoint(self) -> Checkpoint:
        """What the run kept of this step."""
        path = RunFolder.open(self.run).checkpoints.path(self.step)
        if not path.is_dir():
            raise RunError(f"{path} is gone, and with it what training needs to go on from there")
        return Checkpoint(path, self.step)


def write_checkpoint(path: Path, policy: Policy, state: Progress, place: Place) -> None:
    """Write one. `place` is where the same step is in the run."""
    save_policy(policy, path)
    state.save_to_json(str(path / _THEIRS))
    here = {"run": place.run.relative_to(path.parent).as_posix(), "step": place.step}
    (path / _OURS).write_text(json.dumps(here) + "\n", encoding="utf-8")


def thin_out(folder: Path, limit: int | None, best: str | None) -> None:
    """Remove the oldest ones beyond the limit; the best and the newest stay, as in transformers."""
    if limit is None or limit < 1:
        return
    found = checkpoints_in(folder)
    *older, newest = found
    kept = [newest, *(path for path in older if best is not None and path == Path(best))]
    for path in reversed(older):
        if path not in kept and len(kept) < limit:
            kept.append(path)
    for path in set(found) - set(kept):
        shutil.rmtree(path)


def checkpoints_in(folder: Path) -> list[Path]:
    """Those that are there, the oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def asked_for(folder: Path, asked: str | bool) -> Path:
    """The checkpoint that `resume_from_checkpoint` means: the newest in the folder, or the one that is named."""
    if not isinstance(asked, bool):
        return Path(asked)
    found = checkpoints_in(folder)
    if not found:
        raise RunError(
            f"resume_from_checkpoint = True, and {folder} holds no checkpoint-N: call train() without it, which begins "
            "a run (save_strategy and save_steps say when checkpoints are written)"
        )
    return found[-1]


def read_checkpoint(path: Path) -> tuple[Place, Progress]:
    """Where the run is that it belongs to, and how far training was."""
    written: Any
    try:
        written = json.loads((path / _OURS).read_text(encoding="utf-8"))
        place = Place(path.absolute().parent / str(written["run"]), int(written["step"]))
        return place, Progress.load_from_json(str(path / _THEIRS))
    except FileNotFoundError as error:
        raise RunError(
            f"training cannot go on from {path}: there is no {Path(error.filename).name} in it, so it was not written "
            "by groupwise.compat.trl. If it holds a model, begin with it: GRPOTrainer(model=...)"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"training cannot go on from {path}: {type(error).__name__}: {error}") from error


def go_back_to(place: Place) -> None:
    """Make a run ready to go on after this step: what came later is forgotten when it does."""
    run = RunFolder.open(place.run)
    if run.status == "running":
        raise RunError(f"{place.run} is still being written by another process")
    place.checkpoint()
    run.checkpoints.forget_after(place.step)
    run.checkpoints.point("latest", place.step)
    run.record({"status": "interrupted"})
