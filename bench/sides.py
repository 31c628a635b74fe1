"""Start the measuring processes, one at a time, and bring their results back.

Each measurement is a process of its own, so that none sees the memory or the warm caches of another. Standard library
only: this process stays small beside them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from workloads import Shape, Workload

HERE = Path(__file__).parent
ROOT = HERE.parent
MODELS = ROOT / "build" / "bench" / "models"
TRL_PYTHON = ROOT / ".venv-trl" / "bin" / "python"


class MeasurementError(Exception):
    """A measuring process did not come to its end. Says why."""


def model_folder(shape: Shape) -> Path:
    """The folder of the model of this shape; it is written when first asked for, and anew when how has changed."""
    fields = json.dumps(asdict(shape))
    how = Path(__file__).with_name("models.py").read_text()
    folder = MODELS / hashlib.blake2b((fields + how).encode(), digest_size=6).hexdigest()
    if not (folder / "tokenizer.json").is_file():
        say(f"  writing a model: {shape}")
        run(sys.executable, "models.py", fields, folder)
    return folder


def ours(workload: Workload, *, steps: int, dtype: str = "fp32", device: str = "cpu") -> dict:
    """Measure our side."""
    say(f"  groupwise {workload.name}, {dtype}: {steps} steps, the first to warm up")
    folder = model_folder(workload.shape)
    return result_of(
        sys.executable, "our_side.py", workload, folder, "--steps", steps, "--dtype", dtype, "--device", device
    )


def trl(
    workload: Workload, like: dict, *, steps: int, device: str = "cpu", seconds: float | None = None, **settings
) -> dict:
    """Measure TRL's side on the prompts that our side drew, within so many seconds. `settings` are `micro_batch`,
    `generate` and `only`."""
    words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items())
    say(f"  TRL {workload.name}, {words}: {steps} steps")
    options = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
    if device == "cpu":
        options += ["--limit-gb", f"{spare_gigabytes():.1f}"]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as drawn:
        json.dump(like, drawn)
        drawn.flush()
        options += ["--like", drawn.name, "--steps", steps, "--device", device]
        return result_of(trl_python(), "trl_side.py", workload, model_folder(workload.shape), *options, seconds=seconds)


def trl_python() -> str | None:
    """The Python that has TRL: the one that TRL_PYTHON names, or that of `.venv-trl`, which `make bench` makes, or this
    one. None: there is none."""
    if named := os.environ.get("TRL_PYTHON"):
        return named
    if TRL_PYTHON.is_file():
        return str(TRL_PYTHON)
    return sys.executable if importlib.util.find_spec("trl") else None


def result_of(python, script: str, workload: Workload, folder: Path, *options, seconds: float | None = None) -> dict:
    """Run a measuring process and return what it wrote."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out.json"
        run(python, script, workload.to_json(), folder, out, *options, seconds=seconds)
        return json.loads(out.read_text())


def run(python, script: str, *arguments, seconds: float | None = None) -> str:
    """Run a script of this folder to its end; returns what it printed, which is shown only if it fails."""
    command = [str(part) for part in (python, HERE / script, *arguments)]
    # Measured is what the settings say, not what this shell happens to say.
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise MeasurementError("no time left") from None
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise MeasurementError(lines[-1] if lines else f"{script} ended with code {done.returncode}")
    say(f"    {time.perf_counter() - start:.0f} s in all")
    return done.stdout


def spare_gigabytes() -> float:
    """Nine tenths of the memory that is free now: what a measurement may take without the machine falling over."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return 1e6
    fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
    return 0.9 * int(fields["MemAvailable"].split()[0]) / 2**20


def say(text: str) -> None:
    """What happens, while it happens."""
    print(text, flush=True)
