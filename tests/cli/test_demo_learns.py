"""A shorter demo, with its own model and recipes: it must learn, and with the advantage's sign flipped it must not."""

from __future__ import annotations

from pathlib import Path

import pytest

from groupwise.cli import demo
from groupwise.config import load_recipe
from groupwise.learner import algorithm
from groupwise.maths.advantages import group_normalized
from groupwise.maths.tables import Table
from groupwise.training.trainer import Trainer

SEED = 0


def recipe(name: str, folder: Path, model: Path, *settings: str):
    everywhere = [f"seed={SEED}", f'run.folder="{folder}"', f'model.id="{model}"', "evaluation.problems=128"]
    return load_recipe(demo.RECIPES / name, [*everywhere, *settings])


def trained(folder: Path, start: Path, name: str) -> tuple[float, float]:
    loaded = recipe("demo.toml", folder, start, "train.steps=18", "evaluation.every=0", f"run.name={name}")
    first, last = Trainer.from_recipe(loaded).train().evaluations()
    return first["accuracy"], last["accuracy"]


def flipped(rewards_QG):
    return [[-advantage for advantage in group] for group in group_normalized(rewards_QG)]


def test_a_shorter_demo_learns_and_a_flipped_sign_does_not(tmp_path, monkeypatch: pytest.MonkeyPatch):
    demo.write_untrained(tmp_path / "untrained", SEED)
    loaded = recipe(
        "demo_warm_start.toml", tmp_path, tmp_path / "untrained", "sft.steps=700", "evaluation.before=false"
    )
    warm = Trainer.from_recipe(loaded).sft()

    before, after = trained(tmp_path, warm.model_path, "right")
    assert before <= 0.20
    assert after >= 0.60

    monkeypatch.setattr(algorithm, "ADVANTAGES", Table("advantage", {"group_normalized": flipped}))
    same_before, worse = trained(tmp_path, warm.model_path, "flipped")
    assert same_before == before
    assert worse <= before + 0.05, "a problem or two of 128 more may be luck"
