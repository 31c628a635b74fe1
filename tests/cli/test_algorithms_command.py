"""`groupwise algorithms`, and an algorithm with parts of the user's own, from the recipe to the record."""

import pytest

from groupwise.config import PRESETS, load_recipe
from groupwise.learner.algorithm import TABLES
from groupwise.runs.folder import RunFolder


def test_every_preset_and_what_it_changes(groupwise, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    ended = groupwise("algorithms")
    assert ended.code == 0
    assert [line.split()[0] for line in ended.out.splitlines() if line[:1].strip()][: len(PRESETS)] == list(PRESETS)
    lines = ended.out.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("dapo "))
    assert lines[place + 3].strip() == 'weights = "token_mean", clip_high = 0.28, selection = "dynamic_sampling"'
    assert max(map(len, lines)) <= 100


def test_one_preset_with_its_entries_and_their_settings(groupwise):
    ended = groupwise("algorithms", "vespo")
    assert ended.code == 0
    assert "surrogate = vespo" in ended.out
    assert "  arXiv 2602.10693" in ended.out
    assert "  algorithm.settings.k_lambda_pos = [2.0, 3.0]" in ended.out
    assert "filter = top_entropy" in groupwise("algorithms", "high_entropy").out


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.kind)
def test_one_table(groupwise, table):
    ended = groupwise("algorithms", table.kind)
    assert ended.code == 0
    assert [line for line in ended.out.splitlines() if line in table] == list(table)
    assert 'One of your own: "file.py:name"' in ended.out


def test_what_there_is_not(groupwise):
    ended = groupwise("algorithms", "ppo")
    assert ended.code == 1
    assert ended.err.startswith("'ppo' is neither a preset nor a table. Presets: grpo, dr_grpo")


OWN = """
def tempered(log_ratio_T, advantages_T, *, power: float = 0.5):
    return -advantages_T * (power * log_ratio_T).exp() / power

def cubed(rewards_QG):
    return [[0.0 if r is None else (r - 0.5) ** 3 for r in rewards_G] for rewards_G in rewards_QG]
"""


def test_parts_of_ones_own_train_and_are_recorded_with_their_settings(groupwise, recipe):
    (recipe.parent / "mine.py").write_text(OWN, encoding="utf-8")
    text = recipe.read_text() + '[algorithm]\nsurrogate = "mine.py:tempered"\nadvantage = "mine.py:cubed"\n'
    recipe.write_text(text)
    ended = groupwise("train", "recipe.toml", "train.steps=1", 'algorithm.filters=["top_entropy"]')
    assert ended.code == 0, ended.err
    assert "grpo: mine.py:cubed, mine.py:tempered, sequence_mean, no KL term, top_entropy" in ended.out
    record = load_recipe(RunFolder.open(recipe.parent / "runs" / "toy").path / "recipe.toml")
    assert record.recipe.algorithm.settings == {"power": 0.5, "top_share": 0.2}
    assert (recipe.parent / "runs" / "toy" / "recipe.toml").read_text().count("settings.power = 0.5") == 1


def test_what_is_wrong_with_them_is_said_before_anything_is_loaded(groupwise, recipe):
    (recipe.parent / "mine.py").write_text(OWN, encoding="utf-8")
    ended = groupwise("train", "recipe.toml", "algorithm.surrogate=mine.py:temperd", "model.id=nowhere")
    assert ended.code == 1
    assert "has no function 'temperd'. It has: tempered, cubed" in ended.err
    ended = groupwise("train", "recipe.toml", "algorithm.settings.dleta=2", "model.id=nowhere")
    assert ended.code == 1
    assert "algorithm.settings.dleta: there is no such setting" in ended.err


@pytest.mark.parametrize("preset", ["rloo", "gdpo", "clip_cov", "gspo", "vespo"])
def test_presets_that_need_more_than_rewards_and_logprobs_train(groupwise, recipe, preset):
    ended = groupwise("train", "recipe.toml", f"algorithm.preset={preset}", "algorithm.beta=0.1", "learner.passes=2")
    assert ended.code == 0, ended.err
    metrics = RunFolder.open(recipe.parent / "runs" / "toy").metrics.read()
    assert len(metrics) == 2
    assert all("kl" in row for row in metrics)
