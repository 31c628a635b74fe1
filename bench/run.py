"""The bench: groupwise and TRL on the same workloads, against the machine's own limit, and how cost grows.

    make bench                                   # everything, about an hour on two cores: leave the machine alone
    make bench ARGS="--only W1"                  # or W0 ... W5, compare (all six), floor, growth or one of its axes
    make bench ARGS="--only settings"            # search anew for TRL's fastest settings
    make bench ARGS="--only tables"              # measure nothing: write tables and plots anew
    make bench ARGS="--only W1 --quick"          # a smaller W1 in a minute or two, to see that it runs

Writes a file for this kind of machine in docs/measured, the tables of docs/measurements.md and the plots in
docs/images. What was measured before, here or elsewhere, stays where this run measures nothing. With `--quick` all
three go to build/bench, for such figures prove nothing.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import growth
import tables
from compare import WARM_UP, compare, fastest, search
from results import Results, everywhere, of_this_machine
from sides import ROOT, MeasurementError, model_folder, ours, result_of, run, say, trl_python
from workloads import WORKLOADS, Workload

AXES = tuple(series.name for series in growth.SERIES)
PARTS = ("compare", "floor", "growth", *AXES, "settings", "tables")
SETTINGS_OF = {name: "W1" if name == "W5" else name for name in WORKLOADS}
"""W5 is W1 with more passes: what is fastest for one is for the other."""


SECTIONS = ("compare", "memory", "rates", "settings", "compare-whence", "floor", "growth")
"""Of the page, written anew whenever anything is."""


def smaller(workload: Workload) -> Workload:
    """The same kind of step at a tenth of the cost."""
    problems, cap = max(workload.problems // 4, 1), max(workload.cap // 8, 8)
    return replace(workload, problems=problems, cap=cap, shape=replace(workload.shape, layers=2))


def gemm_rates(before: dict[str, float] | None = None) -> dict[str, float]:
    """What the machine can do, measured now; the best of both, if it was measured before."""
    say("the rate of matrix multiplication")
    now = json.loads(run(sys.executable, "arithmetic.py"))
    return {name: max(rate, (before or {}).get(name, 0.0)) for name, rate in now.items()}


def measure_floor(workload: Workload, steps: int) -> dict:
    """W1 in both precisions by the clock, then by the profiler."""
    say("floor: W1 in fp32 and bf16")
    entry: dict = {"workload": asdict(workload), "gemm": gemm_rates()}
    for dtype in ("fp32", "bf16"):
        entry[dtype] = ours(workload, steps=steps + WARM_UP, dtype=dtype)
        say(f"  where the time goes, {dtype}")
        folder = model_folder(workload.shape)
        entry[f"{dtype}_breakdown"] = result_of(sys.executable, "breakdown.py", workload, folder, "--dtype", dtype)
    return {**entry, "gemm": gemm_rates(entry["gemm"])}


def chosen(only: list[str]) -> tuple[list[str], list[str]]:
    """Which workloads to compare, and which other parts to run."""
    wanted = only or ["compare", "floor", "growth"]
    known = [*WORKLOADS, *PARTS]
    if wrong := [name for name in wanted if name not in known]:
        sys.exit(f"--only {' '.join(wrong)}: there is {', '.join(known)}")
    if "growth" in wanted:
        wanted = [*wanted, *AXES]
    names = [name for name in WORKLOADS if name in wanted or "compare" in wanted]
    return names, [part for part in PARTS if part in wanted]


def write(folder: Path) -> None:
    """Tables and plots of everything that was ever measured."""
    page = folder / "measurements.md"
    if not page.is_file():
        shutil.copy(ROOT / "docs" / "measurements.md", page)
    told: dict[str, list[str]] = {section: [] for section in SECTIONS}
    for results in everywhere(folder):
        for section, text in sections(results).items():
            told[section].append(f"**{results.machine()}**\n\n{text}")
        draw(results, folder / "images")
    for section, texts in told.items():
        tables.write_section(page, section, "\n\n".join(texts) or "not measured")
    say(f"written: {page}")


def sections(results: Results) -> dict[str, str]:
    """What the page says of one kind of machine."""
    compared, floor, grown = (results.part(part) for part in ("compare", "floor", "growth"))
    said: dict[str, str] = {}
    if compared:
        searched = {name: results.part("settings")[SETTINGS_OF[name]] for name in compared}
        picture = f"![seconds per step and peak memory of both sides](images/compared-with-trl-{results.name}.png)"
        said = {
            "compare": f"{picture}\n\n{tables.compared(compared)}",
            "rates": tables.rates(compared),
            "memory": tables.memory(compared, searched),
            "settings": tables.settings_tried(results.part("settings")),
            "compare-whence": tables.whence(compared.values()),
        }
    if floor:
        said["floor"] = "\n\n".join((tables.floor(floor, compared), tables.where(floor), tables.whence(floor.values())))
    if grown:
        picture = f"![time and memory against what grows](images/how-cost-grows-{results.name}.png)"
        said["growth"] = "\n\n".join((picture, tables.growth(grown), tables.whence(grown.values())))
    return said


def draw(results: Results, folder: Path) -> None:
    import plots  # matplotlib is large, and a measuring run has no use for it before

    if compared := results.part("compare"):
        plots.compared(compared, folder / f"compared-with-trl-{results.name}.png")
    if grown := results.part("growth"):
        plots.grown(grown, folder / f"how-cost-grows-{results.name}.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="may be given several times")
    parser.add_argument("--quick", action="store_true", help="small workloads, one step each")
    parser.add_argument("--steps", type=int, default=3, help="steps that count, of each measurement")
    parser.add_argument("--out", type=Path, help="folder for the results; docs, or build/bench with --quick")
    arguments = parser.parse_args()
    names, parts = chosen(arguments.only)
    if arguments.steps < 1:
        sys.exit(f"--steps {arguments.steps}: at least one step has to count")
    needs_trl = names or {*AXES, "settings"} & set(parts)
    if needs_trl and trl_python() is None:
        sys.exit("no TRL: .venv-trl is missing. `make bench` makes it; or say which Python has TRL by TRL_PYTHON")
    quick = arguments.quick
    steps = 1 if quick else arguments.steps
    folder = arguments.out or (ROOT / "build" / "bench" if quick else ROOT / "docs")
    folder.mkdir(parents=True, exist_ok=True)
    results = of_this_machine(folder)
    everywhere(folder)  # a file that cannot be read is told before an hour of measuring, not after
    command = shlex.join(["make", "bench", *([f"ARGS={shlex.join(sys.argv[1:])}"] if sys.argv[1:] else [])])
    start = time.perf_counter()
    workloads = {name: smaller(workload) if quick else workload for name, workload in WORKLOADS.items()}
    wanted = [SETTINGS_OF[name] for name in (WORKLOADS if "settings" in parts else names)]
    for name in dict.fromkeys(wanted):
        if "settings" in parts or name not in results.part("settings"):
            results.put("settings", name, search(workloads[name]), command)
    gemm = gemm_rates() if names else {}
    missing: list[str] = []
    for name in names:
        settings = fastest(results.part("settings")[SETTINGS_OF[name]]["tried"])
        try:
            found = compare(workloads[name], steps, settings)
            gemm = gemm_rates(gemm)
            results.put("compare", name, {**found, "gemm": gemm}, command)
        except MeasurementError as error:
            say(f"  {name} was not measured: {error}")
            missing.append(name)
    if "floor" in parts:
        results.put("floor", "W1", measure_floor(workloads["W1"], steps), command)
    for series in growth.SERIES:
        if series.name in parts:
            found = growth.grow(replace(series, values=series.values[:2], trl_at=()) if quick else series, steps)
            results.put("growth", series.name, found, command)
    write(folder)
    say(f"{(time.perf_counter() - start) / 60:.0f} minutes")
    sys.exit(f"not measured: {', '.join(missing)}" if missing else 0)


if __name__ == "__main__":
    main()
