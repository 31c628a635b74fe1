"""The curve of a recipe as a picture: `python bench/recipe_curve.py docs/images/NAME.png runs/ONE runs/OTHER ...`

Accuracy of the evaluations with its 95 % interval, and the share of right answers while training, by step; a colour for
each run. `--points "games won"` says what the evaluations are of, where nothing was held out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

from groupwise.runs.folder import RunFolder

COLOURS = ("#1b6ca8", "#c96f2b", "#4b8b3b", "#8a4fa0")


def evaluated(run: RunFolder) -> list[tuple[int, float, float, float]]:
    """(step, accuracy, low, high) of each evaluation while it trained; later ones may be of other problems."""
    own = [e for e in run.evaluations() if e.get("label") != "eval"]
    by_step = {e["step"]: (e["accuracy"], e["accuracy_low"], e["accuracy_high"]) for e in own}
    return [(step, *by_step[step]) for step in sorted(by_step)]


def picture(runs: list[RunFolder], path: Path, points: str) -> None:
    """One panel, steps from left to right."""
    figure, axis = plt.subplots(figsize=(6, 3.2))
    for run, colour in zip(runs, COLOURS, strict=False):
        rewards = run.metrics.series("reward")
        axis.plot(*zip(*rewards, strict=True), color=colour, linewidth=0.8, alpha=0.5)
        steps, accuracies, lows, highs = zip(*evaluated(run), strict=True)
        axis.fill_between(steps, lows, highs, color=colour, alpha=0.12, linewidth=0)
        axis.plot(
            steps,
            accuracies,
            "o-",
            color=colour,
            markersize=3.5,
            label=f"{run.path.name}, seed {run.identity['seed']}: {points}",
        )
    axis.set_xlabel("step (thin lines: share of right answers while training)")
    axis.set_ylim(-0.02, 1.02)
    axis.set_xlim(left=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="lower right", fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the curve of a recipe.")
    parser.add_argument("picture", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--points", default="held out")
    asked = parser.parse_args()
    picture([RunFolder.open(folder) for folder in asked.runs], asked.picture, asked.points)
