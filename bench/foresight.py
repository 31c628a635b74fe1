"""What `groupwise check` says of memory and time beside what the run then takes, on the bench's workloads.

    python bench/foresight.py W0 W1 W1:bf16       # half a minute each, W4 two, W3 five, with the machine to itself

Each is two processes: one does what `check` does (plan, calibration step), one trains, and is asked what it held.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

HERE = Path(__file__).parent
STEPS = 5
"""The first is warm-up."""
PUBLISHED = ("W0", "W1", "W1:bf16", "W2", "W3", "W4", "W5")
"""Workloads, in fp32 unless it is said."""


@dataclass(frozen=True, slots=True)
class Foresight:
    """Bytes and seconds a step: as they were foretold, and as they came."""

    workload: str
    told_bytes: float
    bytes: float
    told_seconds: float
    seconds: float

    def row(self) -> tuple[str, str]:
        """A line of the page."""
        memory, seconds = self.told_bytes / self.bytes - 1, self.told_seconds / self.seconds - 1
        return (
            f"{self.workload}: memory at the peak, seconds a step, as `check` tells them and as they came",
            f"{self.told_bytes / 1e6:,.0f} and {self.bytes / 1e6:,.0f} MB ({memory:+.0%}), "
            f"{self.told_seconds:.2f} and {self.seconds:.2f} s ({seconds:+.0%})",
        )


def foresight_of(workload: str, model: Path) -> Foresight:
    """Measure one workload with a model that is there."""
    told, came = (_process(what, workload, model) for what in ("tell", "run"))
    return Foresight(workload, told["bytes"], came["bytes"], told["seconds"], came["seconds"])


def all_of(workloads: list[str]) -> list[Foresight]:
    """Measure several, with models made on the spot."""
    from models import write_model
    from workloads import WORKLOADS

    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name in workloads:
            shape = WORKLOADS[name.split(":")[0]].shape
            model = Path(folder) / f"model-{shape.vocabulary}-{shape.hidden}"
            if not model.exists():
                write_model(model, shape)
            found.append(foresight_of(name, model))
    return found


def tell(workload: str, model: str) -> dict:
    """What `check` does: the plan, then the calibration."""
    from groupwise.engines.embedded import EmbeddedEngine
    from groupwise.training.calibrate import calibrate
    from groupwise.training.loop import learner_of, rollouts_of
    from groupwise.training.plan import memory_plan
    from groupwise.training.trainer import run_to_end

    with tempfile.TemporaryDirectory() as folder:
        parts = _trainer(workload, model, folder).prepare()
        plan = memory_plan(parts)
        engine = EmbeddedEngine(parts.policy, parts.recipe.engine.max_rows)
        found = run_to_end(calibrate(parts, engine, learner_of(parts), rollouts_of(parts, engine)))
    return {"bytes": plan.peak, "seconds": found.step_seconds, "parts": dict(plan.parts), "problems": found.problems}


def run(workload: str, model: str) -> dict:
    """A run, and what it held and took."""
    from groupwise.training.machine import peak_resident

    with tempfile.TemporaryDirectory() as folder:
        rows = _trainer(workload, model, folder).train().metrics.read()
    seconds = [float(row["step_seconds"]) for row in rows[1:]]
    return {"bytes": peak_resident(), "seconds": fmean(seconds), "each": seconds}


def _trainer(workload: str, model: str, folder: str):
    from our_side import trainer_of
    from workloads import workload_of

    name, _, dtype = workload.partition(":")
    return trainer_of(workload_of(name), model, folder, steps=STEPS, dtype=dtype or "fp32")[0]


def _process(what: str, workload: str, model: Path) -> dict:
    environment = {**os.environ, "PYTHONPATH": f"{HERE.parent / 'src'}", "KINETO_LOG_LEVEL": "99"}
    environment.pop("OMP_NUM_THREADS", None)
    words = [sys.executable, str(HERE / "foresight.py"), "--", what, workload, str(model)]
    text = subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout
    found = json.loads(text.splitlines()[-1])
    print(f"    {workload} {what}: {found}", flush=True)
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--"]:
        work = {"tell": tell, "run": run}[sys.argv[2]]
        print(json.dumps(work(*sys.argv[3:])))
    else:
        for each in all_of(sys.argv[1:] or list(PUBLISHED)):
            print(": ".join(each.row()))
