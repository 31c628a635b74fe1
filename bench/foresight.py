"""What `groupwise check` says of memory and time beside what the run then takes, on the bench's workloads.

    python bench/foresight.py W0 W1 W2            # half a minute each, with the machine to itself

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
            model = Path(folder) / f"model-{WORKLOADS[name].shape.vocabulary}-{WORKLOADS[name].shape.hidden}"
            if not model.exists():
                write_model(model, WORKLOADS[name].shape)
            found.append(foresight_of(name, model))
    return found


def tell(workload: str, model: str) -> dict:
    """What `check` does: the plan, then the calibration."""
    from groupwise.engines.embedded import EmbeddedEngine
    from groupwise.training.calibrate import calibrate
    from groupwise.training.loop import learner_of, rollouts_of
    from groupwise.training.plan import memory_plan
    from groupwise.training.trainer import run_to_end
    from our_side import trainer_of
    from workloads import workload_of

    with tempfile.TemporaryDirectory() as folder:
        parts = trainer_of(workload_of(workload), model, folder, steps=STEPS)[0].prepare()
        plan = memory_plan(parts)
        engine = EmbeddedEngine(parts.policy, parts.recipe.engine.max_rows)
        found = run_to_end(calibrate(parts, engine, learner_of(parts), rollouts_of(parts, engine)))
    return {"bytes": plan.peak, "seconds": found.step_seconds, "parts": dict(plan.parts), "problems": found.problems}


def run(workload: str, model: str) -> dict:
    """A run, and what it held and took."""
    from groupwise.training.machine import peak_resident
    from our_side import trainer_of
    from workloads import workload_of

    with tempfile.TemporaryDirectory() as folder:
        trainer, _ = trainer_of(workload_of(workload), model, folder, steps=STEPS)
        rows = trainer.train().metrics.read()
    seconds = [float(row["step_seconds"]) for row in rows[1:]]
    return {"bytes": peak_resident(), "seconds": fmean(seconds), "each": seconds}


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
        for each in all_of(sys.argv[1:] or ["W0", "W1", "W2"]):
            print(": ".join(each.row()))
