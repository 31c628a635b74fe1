"""Results as pictures: times and memory of both sides, and how cost grows."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter

from compare import peak, seconds
from growth import SERIES

OURS, THEIRS = "#1b6ca8", "#c96f2b"


def compared(entries: dict[str, dict], path: Path) -> None:
    """Bars side by side, on a logarithmic axis, the ratio above them."""
    names = sorted(entries)
    sides = (
        (-0.2, OURS, "groupwise", [entries[name]["ours"] for name in names]),
        (0.2, THEIRS, "TRL, at its fastest", [[entries[name]["trl"]] for name in names]),
    )
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for axis, measure, title in ((axes[0], seconds, "seconds per step"), (axes[1], peak, "peak memory, MB")):
        heights = [[measure(results) for results in side] for *_, side in sides]
        for (offset, colour, label, _), height in zip(sides, heights, strict=True):
            axis.bar([x + offset for x in range(len(names))], height, 0.4, color=colour, label=label)
        for x, (mine, theirs) in enumerate(zip(*heights, strict=True)):
            axis.annotate(f"{theirs / mine:.1f}x", (x, max(mine, theirs)), ha="center", va="bottom")
        axis.set_yscale("log")
        axis.set_ylim(min(map(min, heights)) / 3, max(map(max, heights)) * 2)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.set_xticks(range(len(names)), names)
        axis.set_title(title)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    save(figure, path)


def grown(entries: dict[str, dict], path: Path) -> None:
    """For each axis time above and memory below; all logarithmic, so that a line of slope 1 is linear growth."""
    shown = [series for series in SERIES if series.name in entries]
    figure, axes = plt.subplots(2, len(shown), figsize=(3.2 * len(shown), 6), squeeze=False, sharey="row")
    for column, series in enumerate(shown):
        points = entries[series.name]["points"]
        for row, (key, label) in enumerate((("seconds", "seconds per step"), ("mb", "peak memory, MB"))):
            axis = axes[row][column]
            axis.plot([p["value"] for p in points], [p[key] for p in points], "o-", color=OURS, label="groupwise")
            theirs = [p for p in points if f"trl_{key}" in p]
            if theirs:
                values = [p["value"] for p in theirs], [p[f"trl_{key}"] for p in theirs]
                axis.plot(*values, "s--", color=THEIRS, label="TRL")
            axis.set_xscale("log", base=2)
            axis.set_yscale("log", base=2)
            axis.set_xticks([p["value"] for p in points], [f"{p['value']:,}" for p in points], rotation=45)
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}")
            axis.spines[["top", "right"]].set_visible(False)
            if column == 0:
                axis.set_ylabel(label)
        axes[0][column].set_title(series.axis, fontsize=10)
    axes[0][0].legend(frameon=False)
    save(figure, path)


def save(figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
