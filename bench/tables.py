"""Results as Markdown: the tables of docs/measurements.md, each between markers, so that a run replaces its own."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from arithmetic import FEW, operations, step_of
from compare import WARM_UP, fastest, peak, per_token, seconds, timed, whole_step_peak
from growth import SERIES, checks
from workloads import Workload, workload_from

BARS = {"W0": (1.5, 0.6), "W1": (10, 0.2), "W2": (8, 0.2), "W3": (3, 0.15), "W4": (2, 0.6), "W5": (10, 0.2)}
"""Wanted: so many times faster than TRL at its fastest, and at most this share of its peak memory."""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def whence(entries: Iterable[dict]) -> str:
    """When, where and by which command the entries were measured, each combination once."""
    said: dict[str, None] = {}
    for entry in entries:
        stamp = entry["stamp"]
        words = f"{stamp['date']}, commit {stamp['commit']}, {stamp['machine']}, {stamp['versions']}"
        said[f"`{entry['command']}`: {words}."] = None
    return "\n\n".join(said)


def verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def compared(entries: dict[str, dict]) -> str:
    """Seconds per step, both sides, and how many times ours goes into theirs."""
    rows = []
    for name, entry in sorted(entries.items()):
        ours, theirs, wanted = entry["ours"], [entry["trl"]], BARS[name][0]
        ratio = seconds(theirs) / seconds(ours)
        rows.append(
            (
                f"{name} {entry['workload']['about']}",
                f"{seconds(ours):.2f}",
                f"{seconds(theirs):.2f}",
                f"**{ratio:.1f}x**",
                f"{per_token(theirs) / per_token(ours):.1f}x",
                f"{wanted}x",
                verdict(ratio >= wanted),
            )
        )
    head = ("workload", "groupwise s/step", "TRL s/step", "ratio", "per generated token", "bar", "")
    return table(head, rows)


def memory(entries: dict[str, dict], searched: dict[str, dict]) -> str:
    """Peak memory against TRL at its fastest and against TRL with the whole step in one micro-batch."""
    rows = []
    for name, entry in sorted(entries.items()):
        mine, fast, wanted = peak(entry["ours"]), entry["trl"]["peak_mb"], BARS[name][1]
        # Where there was not enough memory for the whole step, the bar is met by any share.
        whole = whole_step_peak(searched[name]["tried"]) or math.inf
        at_once = f"{whole:,.0f}" if math.isfinite(whole) else "more than there is"
        shares = [cell for other in (whole, fast) for cell in (f"{mine / other:.2f}", verdict(mine / other <= wanted))]
        rows.append((name, wanted, f"{mine:,.0f}", at_once, *shares[:2], f"{fast:,.0f}", *shares[2:]))
    head = ("workload", "bar", "groupwise MB", "TRL MB, all at once", "ratio", "", "TRL MB, fastest", "ratio", "")
    return table(head, rows)


def rates(entries: dict[str, dict]) -> str:
    """Tokens per second and where each side's time goes."""
    rows = []
    for name, entry in sorted(entries.items()):
        passes = entry["workload"]["passes"]
        mine = [row for result in entry["ours"] for row in timed(result)]
        theirs = timed(entry["trl"])
        cores = f"{min(row['cores'] for row in mine):.1f}, {min(row['cores'] for row in theirs):.1f}"
        split = " + ".join(f"{mean(mine, phase):.2f}" for phase in ("sample", "grade", "learn", "sync"))
        other = mean(theirs, "seconds") - mean(theirs, "sample")
        rows.append(
            (
                name,
                f"{speed(mine):,.0f}",
                f"{speed(theirs):,.0f}",
                f"{passes * speed(mine):,.0f}",
                f"{passes * speed(theirs):,.0f}",
                split,
                f"{mean(theirs, 'sample'):.2f} + {other:.2f}",
                cores,
            )
        )
    head = (
        "workload",
        "groupwise generated tok/s",
        "TRL",
        "groupwise trained tok/s",
        "TRL",
        "groupwise s: sample + grade + learn + sync",
        "TRL s: generate + rest",
        "cores busy, at least",
    )
    return table(head, rows)


def mean(rows: list[dict], key: str) -> float:
    return sum(row[key] for row in rows) / len(rows)


def speed(rows: list[dict]) -> float:
    return sum(sum(row["lengths"]) for row in rows) / sum(row["seconds"] for row in rows)


def settings_tried(searched: dict[str, dict]) -> str:
    """What TRL was tried with, and what was taken."""
    rows = []
    for name, entry in sorted(searched.items()):
        taken = fastest(entry["tried"])
        for tried in entry["tried"]:
            knob, words = ("generate", "") if tried["only"] == "generate" else ("micro_batch", " completions at once")
            counts = tried["steps"] > WARM_UP
            figures = (tried["failed"][:60], "") if "failed" in tried else told(tried)
            chosen = "taken" if counts and tried[knob] == taken[knob] else "" if counts else "for its memory"
            rows.append((name, tried["only"], f"{tried[knob]}{words}", tried["completions"], *figures, chosen))
    head = ("workload", "half of a step", "setting", "completions", "s", "peak MB", "")
    return f"{table(head, rows)}\n\n{whence(searched.values())}"


def told(tried: dict) -> tuple[str, str]:
    return f"{tried['seconds']:.2f}", f"{tried['peak_mb']:,.0f}"


def floor(entries: dict[str, dict], compare: dict[str, dict]) -> str:
    """How much of a step the multiplications alone would take."""
    rows = []
    for label, workload, results, rate in floor_rows(entries, compare):
        steps = [row for result in results for row in timed(result)]
        counted = [operations(workload, step_of(workload, row)).total for row in steps]
        spent = [row["seconds"] for row in steps]
        least = sum(counted) / rate
        rows.append(
            (
                label,
                f"{sum(counted) / len(counted) / 1e9:,.0f}",
                f"{rate / 1e9:,.0f}",
                f"{least / len(counted):.2f}",
                f"{sum(spent) / len(spent):.2f}",
                f"**{least / sum(spent):.0%}**",
            )
        )
    head = ("workload", "operations, 1e9", "measured GEMM rate, 1e9/s", "floor, s", "step, s", "floor / step")
    return table(head, rows)


def floor_rows(entries: dict[str, dict], compare: dict[str, dict]) -> Iterator[tuple[str, Workload, list[dict], float]]:
    """(label, workload, results, rate): W1 in both precisions, the others as compared with TRL."""
    entry = entries["W1"]
    for dtype in ("fp32", "bf16"):
        yield f"W1, {dtype}", workload_from(entry["workload"]), [entry[dtype]], entry["gemm"][dtype]
    for name, entry in sorted(compare.items()):
        if name != "W1":
            yield f"{name}, fp32", workload_from(entry["workload"]), entry["ours"], entry["gemm"]["fp32"]


def where(entries: dict[str, dict]) -> str:
    """Where W1's step goes, and how fast its large parts are."""
    rows, tails = [], []
    for dtype in ("fp32", "bf16"):
        parts = entries["W1"][f"{dtype}_breakdown"]
        whole = sum(parts[half]["clock"] for half in ("decode", "learn"))
        for half in ("decode", "learn"):
            had_to_do = parts["operations"][half]
            rows += [
                (
                    *(dtype, f"{half}: {part}", f"{value:.2f}", f"{value / whole:.0%}"),
                    f"{had_to_do[part] / value / 1e9:,.0f}" if part in had_to_do else "",
                )
                for part, value in parts[half].items()
                if part != "clock"
            ]
        tails.append(tail(dtype, parts["rows"]))
    head = ("precision", "what", "s", "of the step", "operations of the floor, 1e9/s")
    return "\n\n".join((table(head, rows), *tails))


def tail(dtype: str, rows: dict[str, float]) -> str:
    """How long the tail of a batch is."""
    steps = f"{rows['steps']:,.0f} decoding steps of {rows['mean']:.0f} rows on average"
    return f"{dtype}: {steps}; {rows['few']:.0%} of them have {FEW} rows or fewer."


def growth(entries: dict[str, dict]) -> str:
    """A table for each axis, and what the figures had to be."""
    blocks = []
    for series in SERIES:
        if series.name not in entries:
            continue
        points = entries[series.name]["points"]
        rows = [
            (
                f"{point['value']:,}",
                f"{point['seconds']:.2f}",
                f"{point['mb']:,.0f}",
                f"{point['trl_seconds']:.2f}" if "trl_seconds" in point else "",
                f"{point['trl_mb']:,.0f}" if "trl_mb" in point else "",
            )
            for point in points
        ]
        said = "\n".join(
            f"- {check.says}: {check.figure:.2f}, to be at most {check.limit:g}: {verdict(check.holds)}"
            for check in checks(series, points)
        )
        head = (series.axis, "s/step", "peak MB", "TRL s/step", "TRL peak MB")
        blocks.append(f"{series.about[0].upper()}{series.about[1:]}.\n\n{table(head, rows)}\n\n{said}")
    return "\n\n".join(blocks)


def write_section(path: Path, name: str, text: str) -> None:
    """Put the text between the markers of this name, `<!-- name -->` and `<!-- /name -->`."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    page = path.read_text(encoding="utf-8")
    assert begin in page and end in page, f"{path} has no section {name}"
    filled = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{text}\n{end}", page, flags=re.S)
    path.write_text(filled, encoding="utf-8")
