"""Do they learn? Every preset on the arithmetic task, from one warm start, for the same number of samples.

    python bench/learning.py                       # all, then page and picture: about half an hour
    python bench/learning.py grpo gspo             # these only
    python bench/learning.py --seeds 3             # with three seeds each, from the same warm start
    python bench/learning.py --missing             # only what was never measured at these settings
    python bench/learning.py --page                # measure nothing: write the page and the picture anew

The model and the warm start are those of `groupwise demo` (1.2 million parameters; a minute and a half, once). What is
measured is kept in docs/algorithms.json, preset by preset, with the date and the commit. What was measured at this
commit is not measured again, so an interrupted run goes on where it was. The page is docs/algorithms.md; the command
ends with exit code 1 if a preset gained less than 0.3 with any seed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import learning_page
from groupwise.cli.demo import RECIPES, write_untrained
from groupwise.cli.quiet import quiet_libraries
from groupwise.config import PRESETS, load_recipe
from groupwise.config.toml_text import toml_value
from groupwise.runs.folder import RunFolder
from groupwise.training.reporter import QuietReporter
from groupwise.training.trainer import Trainer
from results import Results, commit

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "learning"
GAIN = 0.3
"""What each preset has to gain in held-out accuracy."""

STEPS, PROMPTS, GROUP, EVERY = 40, 8, 8, 4
SAMPLES = 24 * PROMPTS * GROUP
"""A run ends with the first evaluation after so many samples: whoever draws more in a step makes fewer steps."""
COMMON = {
    "train.steps": STEPS,
    "train.prompts_per_step": PROMPTS,
    "train.group_size": GROUP,
    "learner.passes": 2,
    "learner.updates_per_batch": 2,
    "optimizer.lr": 1e-5,
    "evaluation.every": EVERY,
    "evaluation.problems": 128,
}
"""The recipe is the demo's with these. Four updates on each batch, three of them off policy: else there were nothing to
clip, and most presets were one."""

RIGHT = {"function": "correctness", "settings": {"exact": 1.0, "numeric": 1.0}}
OWN: dict[str, tuple[dict[str, object], str]] = {
    "gfpo": (
        {"optimizer.lr": 2e-5},
        "only the shorter half of each group trains, and here what is right is longer than what is wrong: with the "
        "learning rate of the others it came to 0.19 in the same number of samples",
    ),
    "gdpo": (
        {"rewards": [RIGHT, {"function": "tag_count"}]},
        "it is made for several reward functions, so it gets a second one, for the tags; the reward is the sum",
    ),
}
"""What a preset needs beside its own entries, and why."""


def warm_start() -> Path:
    """The folder of the model that all presets start from."""
    if not (FOLDER / "warm-start" / "model" / "config.json").is_file():
        if not (FOLDER / "warm-start").is_dir():  # one that was interrupted goes on where it was
            shutil.rmtree(FOLDER, ignore_errors=True)
            write_untrained(FOLDER / "untrained", seed=0)
        settings = [f'model.id="{FOLDER}/untrained"', f'run.folder="{FOLDER}"', "run.name=warm-start", "seed=0"]
        quietly(lambda: Trainer.from_recipe(load_recipe(RECIPES / "demo_warm_start.toml", settings)).sft())
    return FOLDER / "warm-start" / "model"


def settings_of(preset: str) -> dict[str, object]:
    """All that a preset trains with, beside the demo's recipe."""
    return {"algorithm.preset": preset, **COMMON, **OWN.get(preset, ({}, ""))[0]}


def measure(preset: str, seed: int, model: Path) -> dict:
    """One preset: rewards by step, held-out accuracy by samples, up to the number that all have."""
    shutil.rmtree(FOLDER / preset, ignore_errors=True)
    run = {"model.id": str(model), "run.folder": str(FOLDER), "run.name": preset, "seed": seed}
    named = {**settings_of(preset), **run}
    start = time.perf_counter()
    trainer = Trainer.from_recipe(load_recipe(RECIPES / "demo.toml", overrides(named)), Until(SAMPLES))
    with contextlib.suppress(Enough):
        quietly(trainer.train)
    return {
        **curves(RunFolder.open(FOLDER / preset)),
        "seconds": time.perf_counter() - start,
        "settings": settings_of(preset),
    }


class Enough(Exception):  # noqa: N818  (no error)
    """The run has drawn its samples."""


class Until(QuietReporter):
    """Ends a run with the first evaluation after so many samples."""

    def __init__(self, samples: int) -> None:
        self._left = float(samples)
        self._examining = False

    def started(self, total_steps: int, description: str) -> None:
        """Evaluations are told like steps."""
        self._examining = description == "evaluating"

    def finished(self) -> None:
        """Steps again."""
        self._examining = False

    def step(self, metrics: Mapping[str, float]) -> None:
        """Count the step's samples."""
        if not self._examining:
            self._left -= GROUP * metrics.get("selection/groups", PROMPTS)

    def evaluated(self, label: str, result: str) -> None:
        """End if that was enough."""
        if self._left <= 0:
            raise Enough


def curves(run: RunFolder) -> dict:
    """What a run's folder says, by samples drawn."""
    rows = run.metrics.read()
    drawn = [0.0]
    for row in rows:
        drawn.append(drawn[-1] + GROUP * row.get("selection/groups", PROMPTS))
    return {
        "samples": drawn[1:],
        # Of several reward functions the one that all have.
        "rewards": [row.get("rewards/correctness/mean", row["reward"]) for row in rows],
        "evaluations": [(drawn[each["step"]], each["accuracy"]) for each in run.evaluations()],
    }


def overrides(named: dict[str, object]) -> list[str]:
    """Settings as the command line takes them."""
    return [f"{name}={toml_value(value)}" for name, value in named.items()]


def quietly(work):
    """Do it without the progress bars of libraries."""
    with contextlib.redirect_stderr(io.StringIO()):
        return work()


def entry_of(preset: str, seed: int) -> str:
    """What an entry is called. Example: `entry_of("grpo", 0)` is "grpo", with the next seed it is "grpo, seed 1"."""
    return f"{preset}, seed {seed}" if seed else preset


def is_done(entry: dict | None, preset: str, now: str | None) -> bool:
    """Whether there is an entry at these settings, and of the commit `now` if one is given."""
    return (
        entry is not None
        and entry["settings"] == settings_of(preset)
        and (now is None or (entry["stamp"]["commit"] == now and not now.endswith("+")))
    )


def main() -> int:
    """Measure what is asked for and not done, write the page, say who failed."""
    parser = argparse.ArgumentParser(description="Train every preset on the arithmetic task and compare them.")
    parser.add_argument("presets", nargs="*", default=list(PRESETS), help="only these")
    parser.add_argument("--seeds", type=int, default=1, help="so many runs of each")
    parser.add_argument("--missing", action="store_true", help="keep what was measured at other commits")
    parser.add_argument("--page", action="store_true", help="measure nothing")
    parser.add_argument("--at-most", type=int, default=None, help="measure no more than so many now")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where algorithms.json and algorithms.md are")
    asked = parser.parse_args()
    if wrong := [name for name in asked.presets if name not in PRESETS]:
        parser.error(f"{wrong[0]!r} is no preset. There are: {', '.join(PRESETS)}")
    quiet_libraries()
    results, now = Results(asked.docs / "algorithms.json"), None if asked.missing else commit()
    known = results.part("presets")
    wanted = [(preset, seed) for seed in range(asked.seeds) for preset in asked.presets]
    left = [each for each in wanted if not is_done(known.get(entry_of(*each)), each[0], now)]
    for preset, seed in [] if asked.page else left[: asked.at_most]:
        entry, name = measure(preset, seed, warm_start()), entry_of(preset, seed)
        results.put("presets", name, entry, f"python bench/learning.py {preset} --seeds {seed + 1}")
        first, last = learning_page.ends(entry, SAMPLES)
        print(f"{name:<30} {first:.2f} -> {last:.2f}  {entry['seconds']:.0f} s", flush=True)
    return write_page(results, asked.docs)


def write_page(results: Results, docs: Path) -> int:
    """The page and the picture of everything that was ever measured; 1 if a preset gained too little."""
    known = results.part("presets")
    entries = {name: known[name] for name in PRESETS if name in known}
    others = {name: [entry for key, entry in known.items() if key.startswith(f"{name}, seed ")] for name in entries}
    learning_page.write(entries, others, docs, samples=SAMPLES, common=COMMON, own=OWN)
    everything = [(name, entry) for name in entries for entry in (entries[name], *others[name])]
    poor = [name for name, entry in everything if learning_page.gain(entry, SAMPLES) < GAIN]
    for name in poor:
        print(f"{name} gained less than {GAIN} in held-out accuracy", file=sys.stderr)
    return 1 if poor else 0


if __name__ == "__main__":
    sys.exit(main())
