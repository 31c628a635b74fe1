"""A shorter demo, with its own two recipes: it must learn, and with the advantage's sign flipped it must not."""

from __future__ import annotations

from pathlib import Path

import pytest

from groupwise.cli import demo
from groupwise.config import load_recipe
from groupwise.learner import algorithm
from groupwise.maths.advantages import group_normalized
from groupwise.maths.tables import Table
from groupwise.models.small import write_small_model
from groupwise.training.trainer import Trainer

SEED = 1


def recipe(name, folder: Path, *settings: str):
    shorter = ["task.digits=2", "task.train_size=5000", "sampling.max_new_tokens=28", "evaluation.problems=128"]
    return load_recipe(demo.RECIPES / name, [f"seed={SEED}", f'run.folder="{folder}"', *shorter, *settings])


def trained(folder: Path, start: Path, name: str):
    loaded = recipe("demo.toml", folder, f'model.id="{start}"', "train.steps=36", f"run.name={name}")
    run = Trainer.from_recipe(loaded).train()
    first, last = run.evaluations()[0], run.evaluations()[-1]
    return first["accuracy"], last["accuracy"]


def flipped(rewards_QG):
    return [[-advantage for advantage in group] for group in group_normalized(rewards_QG)]


def test_a_shorter_demo_learns_and_a_flipped_sign_does_not(tmp_path, monkeypatch: pytest.MonkeyPatch):
    write_small_model(tmp_path / "untrained", hidden=128, layers=3, seed=SEED)
    loaded = recipe("demo_warm_start.toml", tmp_path, f'model.id="{tmp_path / "untrained"}"', "sft.steps=420")
    warm = Trainer.from_recipe(loaded).sft()

    before, after = trained(tmp_path, warm.model_path, "right")
    assert before <= 0.20
    assert after >= 0.60

    monkeypatch.setattr(algorithm, "ADVANTAGES", Table("advantage", {"group_normalized": flipped}))
    same_before, worse = trained(tmp_path, warm.model_path, "flipped")
    assert same_before == before
    assert worse <= before
