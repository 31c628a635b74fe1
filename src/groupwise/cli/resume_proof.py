"""`groupwise doctor --resume recipe.toml`: on this machine, with this recipe, does a run that was killed end as if it
had not been? A few steps straight, and the same with a kill -9 in between, compared to the last bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from groupwise.cli.findings import Finding

STEPS, KILL_AFTER, EVERY = 6, 3, 2
"""Killed once three steps are written down: the checkpoint of the second is there, and the third is lost."""

_SHOWN = 5


def resume(recipe: str) -> Iterator[Finding]:
    """The proof. Everything is written into a temporary folder."""
    from groupwise.runs.compare import differences
    from groupwise.runs.folder import RunFolder

    with tempfile.TemporaryDirectory(prefix="groupwise-") as folder:
        runs = {name: Path(folder) / name for name in ("straight", "killed")}
        if failed := _trained(recipe, folder, "straight"):
            yield Finding("resume", "error", f"the recipe does not run: {failed}", "mend what it names")
            return
        yield Finding("resume", "ok", f"{STEPS} steps straight are done")
        done = _killed(recipe, folder, runs["killed"])
        if failed := _trained(recipe, folder, "killed"):
            yield Finding("resume", "error", f"after a kill the run does not go on: {failed}", "report this, please")
            return
        yield Finding("resume", "ok", f"the same with kill -9 after step {done} is done")
        found = differences(*(RunFolder.open(path) for path in runs.values()))
    if not found:
        text = "weights, optimizer, metrics, evaluations and rollouts are equal to the last bit"
        yield Finding("resume", "ok", text, values={"steps": STEPS, "killed_after": done})
        return
    more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    yield Finding(
        "resume",
        "error",
        "\n".join(["what differs:", *found[:_SHOWN], *more]),
        "a reward that draws random numbers of its own or remembers needs state() and restore(state); on a GPU set "
        "CUBLAS_WORKSPACE_CONFIG=:4096:8",
        {"differences": len(found)},
    )


def _command(recipe: str, folder: str, name: str) -> Sequence[str]:
    settings = [f"run.folder={folder}", f"run.name={name}", "run.trackers=[]", f"train.steps={STEPS}"]
    settings += [f"checkpoints.every={EVERY}", "evaluation.every=0", "evaluation.problems=4"]
    return [sys.executable, "-m", "groupwise", "train", recipe, *settings]


def _trained(recipe: str, folder: str, name: str) -> str:
    """Train to the end; what went wrong, or nothing."""
    ended = subprocess.run(_command(recipe, folder, name), capture_output=True, text=True, check=False)
    return "" if ended.returncode == 0 else ended.stderr.strip() or f"exit code {ended.returncode}"


def _killed(recipe: str, folder: str, run: Path) -> int:
    """Train until some steps are written down, and kill; how many there were."""
    rows = run / "metrics.jsonl"
    with subprocess.Popen(
        _command(recipe, folder, run.name), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        # A checkpoint is written beside the training: killed before it is there, the run would only begin anew.
        while process.poll() is None and not (_lines(rows) >= KILL_AFTER and (run / "checkpoints" / "latest").exists()):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    return _lines(rows)


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0
