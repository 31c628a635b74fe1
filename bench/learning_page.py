"""What `learning.py` measured, as a table and a picture in docs/algorithms.md."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

from groupwise.config.presets import ALL_PRESETS
from groupwise.config.toml_text import toml_value
from tables import write_section

GOOD = 0.9
"""The accuracy that is waited for."""
COLUMNS = 5
ACCURACY, REWARD, OTHERS = "#1b6ca8", "#c96f2b", "#c8c8c8"


def within(entry: dict, samples: int) -> list[tuple[float, float]]:
    """Evaluations of no more than so many samples: who draws more in a step is cut off where the others end."""
    return [(drawn, accuracy) for drawn, accuracy in entry["evaluations"] if drawn <= samples]


def ends(entry: dict, samples: int) -> tuple[float, float]:
    """Held-out accuracy before, and after so many samples."""
    points = within(entry, samples)
    return points[0][1], points[-1][1]


def gain(entry: dict, samples: int) -> float:
    """What was gained between them."""
    before, after = ends(entry, samples)
    return after - before


def until_good(entry: dict, samples: int) -> float | None:
    """Samples until the accuracy is `GOOD`, on the straight line between two evaluations; `None`: never.

    Example: 0.5 after 100 samples and 1.0 after 200: 0.9 after 180.
    """
    points = within(entry, samples)
    for (earlier, low), (later, high) in pairwise(points):
        if low < GOOD <= high:
            return earlier + (later - earlier) * (GOOD - low) / (high - low)
    return None


def ranked(entries: Mapping[str, dict], samples: int) -> list[str]:
    """The soonest to be good first; those that never are by what they reached."""

    def key(name: str) -> tuple[float, float]:
        reached = until_good(entries[name], samples)
        return (float("inf") if reached is None else reached, -ends(entries[name], samples)[1])

    return sorted(entries, key=key)


Others = Mapping[str, list[dict]]
"""What was measured of each preset with further seeds."""


def table(entries: Mapping[str, dict], others: Others, samples: int, own: Mapping[str, tuple[dict, str]]) -> str:
    """A line for each preset, the best first; with further seeds, their range."""
    about = {preset.name: preset.about for preset in ALL_PRESETS}
    lines = [
        f"| preset | what it is | before | after {samples:,} samples | samples until {GOOD} |",
        "|---|---|---|---|---|",
    ]
    for name in ranked(entries, samples):
        before, after = ends(entries[name], samples)
        reached = until_good(entries[name], samples)
        mark = "\\*" if name in own else ""
        told = "never" if reached is None else f"{reached:,.0f}"
        if others[name]:
            span = sorted(until_good(entry, samples) or float("inf") for entry in (entries[name], *others[name]))
            told += f" ({span[0]:,.0f} to {span[-1]:,.0f} with {len(span)} seeds)"
            after = min(after, *(ends(entry, samples)[1] for entry in others[name]))
        lines.append(f"| `{name}`{mark} | {about[name]} | {before:.2f} | {after:.2f} | {told} |")
    return "\n".join(lines)


def best(entries: Mapping[str, dict], others: Others, samples: int, own: Mapping[str, tuple[dict, str]]) -> str:
    """Which did best at the settings that all have in common, and what these are."""
    first, *later = [name for name in ranked(entries, samples) if name not in own] or ranked(entries, samples)
    settings = ", ".join(f"`{name} = {toml_value(value)}`" for name, value in entries[first]["settings"].items())
    reached, last = until_good(entries[first], samples), until_good(entries[later[-1]], samples) if later else None
    span = f", the last one `{later[-1]}` after {last:,.0f}" if last else ""
    lowest = min(ends(entry, samples)[1] for entry in entries.values())
    least = min(gain(entry, samples) for entry in entries.values())
    everything = [entry for name in entries for entry in (entries[name], *others[name])]
    minutes = sum(entry["seconds"] for entry in everything) / 60
    stamps = [entry["stamp"] for entry in everything]
    when = "; ".join(f"{d}, commit {c}" for d, c in dict.fromkeys((s["date"], s["commit"]) for s in stamps))
    return (
        f"At the settings that all have in common `{first}` was the first to get {GOOD} of the held-out problems "
        f"right, after {reached:,.0f} samples{span}, at {settings}. The lowest accuracy at the end is {lowest:.2f}, "
        f"the smallest gain {least:.2f}.\n\n"
        f"Measured {when}, {stamps[-1]['machine']}; {stamps[-1]['versions']}. {minutes:.0f} minutes for "
        f"{len(entries)} presets, {len(everything)} runs."
    )


def settings(common: Mapping[str, object], own: Mapping[str, tuple[dict, str]]) -> str:
    """What all have in common, and what some have beside it."""
    lines = [f"- `{name} = {toml_value(value)}`" for name, value in common.items()]
    for preset, (changed, why) in own.items():
        told = ", ".join(f"`{name} = {toml_value(value)}`" for name, value in changed.items())
        lines.append(f"- \\* `{preset}` with {told}: {why}")
    return "\n".join(lines)


def picture(entries: Mapping[str, dict], samples: int, path: Path) -> None:
    """A small panel for each preset: held-out accuracy and reward by samples, everybody's accuracy in grey behind."""
    rows = -(-len(entries) // COLUMNS)
    figure, axes = plt.subplots(
        rows, COLUMNS, figsize=(2.4 * COLUMNS, 1.7 * rows), sharex=True, sharey=True, squeeze=False
    )
    panels = list(axes.flat)
    for axis, name in zip(panels, ranked(entries, samples), strict=False):
        for entry in entries.values():
            axis.plot(*zip(*within(entry, samples), strict=True), color=OTHERS, linewidth=0.5)
        drawn = entries[name]["samples"]
        axis.plot(drawn, entries[name]["rewards"], color=REWARD, linewidth=0.8, label="reward while training")
        axis.plot(*zip(*within(entries[name], samples), strict=True), color=ACCURACY, label="held-out accuracy")
        axis.set_title(name, fontsize=9)
        axis.set_xlim(0, samples)
        axis.set_ylim(-0.03, 1.03)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in panels[len(entries) :]:
        axis.set_visible(False)
    figure.supxlabel("samples", fontsize=9)
    panels[0].legend(frameon=False, fontsize=6)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write(
    entries: Mapping[str, dict],
    others: Others,
    docs: Path,
    *,
    samples: int,
    common: Mapping[str, object],
    own: Mapping[str, tuple[dict, str]],
) -> None:
    """Put table, settings and picture into the page, between its marks."""
    if not entries:
        return
    page = docs / "algorithms.md"
    for name, part in (
        ("best", best(entries, others, samples, own)),
        ("learning", table(entries, others, samples, own)),
        ("settings", settings(common, own)),
    ):
        write_section(page, name, part)
    picture(entries, samples, docs / "images" / "every-preset-learns.png")
