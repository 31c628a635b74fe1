"""`output_dir/checkpoint-N`: the model as plain transformers or peft loads it, and how far training was."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from transformers import TrainerState as Progress

from groupwise.models.policy import Policy
from groupwise.models.save import save_policy

_NAME = re.compile(r"checkpoint-(\d+)")


def write_checkpoint(folder: Path, policy: Policy, state: Progress, *, limit: int | None) -> Path:
    """Write the one of this optimizer step and delete the oldest ones beyond the limit."""
    path = folder / f"checkpoint-{state.global_step}"
    save_policy(policy, path)
    state.save_to_json(str(path / "trainer_state.json"))
    if limit is not None and limit > 0:
        for old in checkpoints_in(folder)[:-limit]:
            shutil.rmtree(old)
    return path


def checkpoints_in(folder: Path) -> list[Path]:
    """Those that are there, the oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))
