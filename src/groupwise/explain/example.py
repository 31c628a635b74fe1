"""The worked example: one problem, and a small model that answers it right about every second time.

A model of some thousand parameters is made, and learns these eight answers to the problem by heart, as the warm start
does it. So what it samples afterwards is theirs: about half of them are right, and the wrong ones differ.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from groupwise.config import load_recipe
from groupwise.learner.learner import Learner
from groupwise.models.small import write_small_model
from groupwise.training.build import Given, Parts, build
from groupwise.training.problems import InOrder
from groupwise.training.reporter import QuietReporter
from groupwise.training.sft import LIKELIHOOD, demonstrated

PROMPT = "Solve y = 2x + 1 for x = 2, y = "
GOLD = "5"
OUTPUTS = ("5.0", "6.0", "7.0", "5.0", "10.0", "2.0", "5.0", "5.0")
RECIPE = Path(__file__).with_name("example.toml")
WARM_START_LR = 1e-2


def write_example(folder: Path, seed: int) -> Path:
    """The recipe, its problem and its model in this folder; returns the recipe."""
    rows = [{"prompt": PROMPT, "completion": output, "answer": GOLD} for output in OUTPUTS]
    (folder / "problem.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write_small_model(folder / "model", hidden=32, layers=2, heads=2, context=128, seed=seed)
    return Path(shutil.copy(RECIPE, folder / "recipe.toml"))


async def prepare(folder: Path, overrides: Sequence[str], seed: int) -> Parts:
    """All that a step needs, the model warmed up. Overrides are those of a recipe: `algorithm.preset=dr_grpo`."""
    parts = build(load_recipe(write_example(folder, seed), [f"seed={seed}", *overrides]), Given())
    recipe = parts.recipe
    learner = Learner(
        parts.policy,
        LIKELIHOOD,
        recipe.learner.model_copy(update={"passes": 1, "updates_per_batch": 1}),
        recipe.optimizer.model_copy(update={"lr": WARM_START_LR}),
        reference=recipe.reference,
        temperature=1.0,
        total_steps=recipe.sft.steps,
    )
    supply = InOrder(demonstrated(parts, QuietReporter()), recipe.seed)
    for _ in range(recipe.sft.steps):
        await learner.update(supply.next(recipe.sft.rows_per_step), sampler_is_exact=True)
    return parts
