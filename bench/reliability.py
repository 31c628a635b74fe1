"""What the promises about reliability are worth: kills, failing disks, changed bytes, what saving and resuming cost.

    python bench/reliability.py                              # all of it, half an hour: writes docs/reliability.md
    python bench/reliability.py --only moments               # one part; the others stay as they are on the page
    python bench/reliability.py --kills 20 --every 40 --dry  # a smaller one, printed and not written

The same harness runs, smaller, in the test suite: tests/crash.py, tests/soak.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402

import foresight  # noqa: E402
from crash import FAULTS, failing, killed, operations_of  # noqa: E402
from groupwise.cli.demo import write_untrained  # noqa: E402
from groupwise.errors import RunError  # noqa: E402
from groupwise.runs.checkpoints.store import Checkpoints, Contents  # noqa: E402
from groupwise.runs.folder import RunFolder  # noqa: E402
from soak import Soak  # noqa: E402


@dataclass
class Findings:
    """Lines of the page."""

    rows: list[tuple[str, str]] = field(default_factory=list)

    def note(self, what: str, came: str) -> None:
        self.rows.append((what, came))
        print(f"{what}: {came}", flush=True)


def contents(value: int) -> Contents:
    tensors = {"weight": torch.full((64, 64), float(value))}
    return Contents({"model/config.json": b"{}"}, {"model/model.safetensors": tensors}).with_state({"step": value})


def failing_disks(folder: Path, findings: Findings) -> None:
    """Every operation of a save fails once with each error; the checkpoint before must stay whole."""
    injected = 0
    for name, error in FAULTS.items():
        store = Checkpoints(folder / name.replace(" ", "-"), "run")
        store.write(10, contents(10))
        operations = len(operations_of(lambda: Checkpoints(folder / "count", "run").write(20, contents(20))))
        for at in range(1, operations + 1):
            with failing(error, at):
                try:
                    store.write(20, contents(20))
                except RunError:
                    injected += 1
            assert store.newest().checkpoint is not None
            assert 10 in store.steps()
            store.heal()
            store.forget_after(10)
    findings.note("disk errors injected into a save (full, over quota, broken, read-only)", f"{injected}")
    findings.note("... after which the last good checkpoint was whole", f"{injected}")


def changed_bytes(folder: Path, findings: Findings) -> None:
    """Each file of a checkpoint flipped at many places, cut, and removed."""
    store = Checkpoints(folder / "bytes", "run")
    store.write(10, contents(10))
    checkpoint = store.write(20, contents(20))
    tried = found = 0
    for path in sorted(path for path in checkpoint.path.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        damages = [whole[:-3], b""]  # the last byte of a manifest is an empty line, which nobody misses
        for place in range(0, len(whole), max(len(whole) // 200, 1)):
            damages.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        for damaged in damages:
            path.write_bytes(damaged)
            tried += 1
            newest = store.newest()
            found += newest.checkpoint is not None and newest.checkpoint.step == 10 and len(newest.faults) == 1
        path.unlink()
        tried += 1
        found += len(store.newest().faults) == 1
        path.write_bytes(whole)
    findings.note("files flipped, cut short or removed", f"{tried}")
    findings.note("... detected, named, and the checkpoint before taken", f"{found}")


def kills_at_operations(folder: Path, findings: Findings, every: int) -> None:
    """Each in a run of its own, so that the kill is in its first attempt; the second attempt goes to the end."""
    soak, wrong, died, at = Soak(folder), "", 0, 1
    while killed(lambda: soak.train(f"at-{at}", background=False), at):  # noqa: B023 (called at once)
        assert not killed(lambda: soak.train(f"at-{at}", background=False), 10**9)  # noqa: B023
        wrong += soak.difference(f"at-{at}")
        died, at = died + 1, at + every
    findings.note(f"runs killed before an operation on the disk (every {every}. of {at})", f"{died}")
    findings.note("... what differs from the undisturbed run in the end", wrong or "nothing")


def kills_at_moments(folder: Path, findings: Findings, count: int) -> None:
    """Each run is killed again and again until it has come to its end."""
    soak, start = Soak(folder), time.perf_counter()
    runs = soak.kill_at_random(kills=count, seed=0)
    wrong = "; ".join(filter(None, map(soak.difference, runs)))
    findings.note("kills of a training process at random moments", f"{count}, of {len(runs)} runs")
    findings.note("... " + ", ".join(soak.met), ", ".join(map(str, soak.met.values())))
    findings.note("... what differs from the undisturbed run in the end", wrong or "nothing")
    seconds = (time.perf_counter() - start) / count
    findings.note("... seconds from one kill to the next, loading and going on included", f"{seconds:.1f}")
    findings.note("... what is left of the processes after 5 s (open files)", f"{soak.leftovers() or 'nothing'}")


def asked_at_moments(folder: Path, findings: Findings, count: int) -> None:
    """Ctrl-C, once to three times, while checkpoints are slow to be written."""
    soak = Soak(folder, steps=20)
    runs = soak.ask_at_random(times=count, seed=0)
    wrong = "; ".join(filter(None, map(soak.difference, runs)))
    ended = ", ".join(f"{times} with {code}" for code, times in sorted(soak.asked.items()))
    findings.note("Ctrl-C at random moments, once to three times", f"{count}, of {len(runs)} runs; ended {ended}")
    findings.note("... what differs from the undisturbed run in the end", wrong or "nothing")


def costs(folder: Path, findings: Findings) -> None:
    """Of the demo's model and GRPO recipe, fifty steps of it after a short warm start, with the machine to itself."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    environment.pop("OMP_NUM_THREADS")
    write_untrained(folder / "model", 0)
    recipes, common = ROOT / "src" / "groupwise" / "cli", [f"run.folder={folder}", "evaluation.problems=8"]
    stages = {
        "sft": ["demo_warm_start.toml", f'model.id="{folder / "model"}"', "run.name=warm", "sft.steps=150"],
        "train": ["demo.toml", f'model.id="{folder / "warm" / "model"}"', "run.name=demo", "train.steps=50"],
    }
    for verb, (recipe, *settings) in stages.items():
        words = [sys.executable, "-m", "groupwise", verb, str(recipes / recipe), *common, *settings]
        subprocess.run(words, env=environment, check=True, stdout=subprocess.DEVNULL)
    run = RunFolder.open(folder / "demo")
    spent = run.identity["checkpoints"]
    seconds = sum(float(row["step_seconds"] or 0) for row in run.metrics.read())
    start = time.perf_counter()
    checkpoint = run.checkpoints.newest().checkpoint
    checkpoint.state()
    read = time.perf_counter() - start
    size = sum(file.stat().st_size for file in checkpoint.path.rglob("*.safetensors"))
    findings.note(
        f"the demo, 50 steps, {spent['saved']} checkpoints of {size / 1e6:.0f} MB: training waited for them",
        f"{spent['seconds_stalled']:.2f} s of {seconds:.0f} s, {spent['seconds_stalled'] / seconds:.2%}",
    )
    findings.note("... written beside it in", f"{spent['seconds_written'] / spent['saved']:.2f} s each")
    findings.note("... one of them checked and read again in", f"{read:.2f} s")


def foretold(findings: Findings) -> None:
    """What `check` says before a run beside what the run then takes; with the machine to itself."""
    for found in foresight.all_of(list(foresight.PUBLISHED)):
        findings.note(*found.row())


PAGE = """# Reliability

Written by `python bench/reliability.py` on {machine}. The same harness runs, smaller, in the test suite.

| | |
|---|---|
{rows}

## What is promised

- **The same command goes on.** `groupwise train recipe.toml` begins a run, and goes on with it whatever ended it: a
  kill, a full disk, a reward that raised, a machine that was taken away. At most the steps since the last checkpoint
  are done again (`checkpoints.every`, 25).
- **To the last bit, on a CPU.** 20 steps straight are 7, a kill and 13: weights, optimizer, metrics (times apart),
  rollouts. Tested for full fine-tuning, LoRA, a moving reference, several passes and updates, 16 bits, dynamic
  sampling, problems by difficulty.
- **Nothing half.** A checkpoint has its name when all of it is on the disk. Every file is held against its SHA-256
  before a run goes on; what is damaged is named, and the one before is taken.
- **A full disk stops saving, not training.** It is said, nothing good is removed, and the next checkpoint tries again.
  Rows of the records wait in memory for room; whose rollouts are not kept is said.
- **Stopping in good order.** Ctrl-C, SIGTERM and SIGHUP drop the step at hand, or finish it if the weights have moved
  in it, save, and exit with 75. That takes at most a micro-batch (or the rest of the step's updates), or whatever a
  reward function takes to return, and one save. A second Ctrl-C leaves at once.
- **No wait without an end** (`[deadlines]`): loading, the preflight, sampling, grading, learning and saving each have
  a deadline and, after 60 s, a word that says what is waited for. Missed, all stacks are in the log and the run ends;
  where Python itself no longer runs, another process ends it. A process that was stopped meanwhile is not late.
- **An alarm may act** (`alarms.action`): pause until somebody has looked (exit code 1), end in good order, or go back
  to the last good checkpoint at a lower learning rate, which survives a kill as everything else does.
- **Memory that does not suffice** halves the micro-batch (the same gradient) or the rows that are sampled at once (the
  same completions). Both are said and remembered.
- **Every recorded step can be computed again**: `groupwise replay RUN --step N`, through the nearest checkpoint.
- **One writer.** A second process is refused, with the ways out, also from another container. The lock of a process of
  the same machine that is gone is taken over.

What is not promised: bit-equality on another device, another number of threads or other versions of torch (it is said
when they differ), and rewards that keep a state without `state()` and `restore(state)`.
"""


PARTS = ("disks", "bytes", "operations", "moments", "asked", "costs", "foresight")
SAVED = ROOT / "docs" / "reliability.json"


def measured(part: str, given: argparse.Namespace) -> Findings:
    """One part, in a folder of its own."""
    findings = Findings()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = {
            "disks": lambda: failing_disks(folder, findings),
            "bytes": lambda: changed_bytes(folder, findings),
            "operations": lambda: kills_at_operations(folder, findings, given.every),
            "moments": lambda: kills_at_moments(folder, findings, given.kills),
            "asked": lambda: asked_at_moments(folder, findings, given.kills // 2),
            "costs": lambda: costs(folder, findings),
            "foresight": lambda: foretold(findings),
        }
        work[part]()
    return findings


def main() -> int:
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--kills", type=int, default=200, help="at random moments")
    reader.add_argument("--every", type=int, default=5, help="kill before every so many operations on the disk")
    reader.add_argument("--only", choices=PARTS)
    reader.add_argument("--dry", action="store_true", help="write nothing")
    given = reader.parse_args()
    known = json.loads(SAVED.read_text()) if SAVED.exists() else {}
    for part in PARTS if given.only is None else (given.only,):
        known[part] = measured(part, given).rows
        if not given.dry:
            SAVED.write_text(json.dumps(known, indent=1) + "\n")
    rows = "\n".join(f"| {what} | {came} |" for part in PARTS for what, came in known.get(part, []))
    machine = f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, torch {torch.__version__}"
    if not given.dry:
        (ROOT / "docs" / "reliability.md").write_text(PAGE.format(machine=machine, rows=rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
