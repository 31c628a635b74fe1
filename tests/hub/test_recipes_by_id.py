"""The recipes that follow the tutorials, ids and all, on the stand-in for the hub; and what their rewards pay."""

import json
from pathlib import Path

import pytest
from test_scripts_by_id import run

from groupwise.config import load_recipe
from groupwise.rewards import load_reward

RECIPES = Path(__file__).parents[2] / "recipes"
GOOD = "<reasoning>\n6 times 4 is 24\n</reasoning>\n<answer>\n{}\n</answer>"


def paid(recipe, text, answer="24"):
    """The sum of a recipe's rewards for one completion."""
    total = 0.0
    for section in load_recipe(RECIPES / recipe).recipe.rewards:
        reward = load_reward(section.function, section.weight, section.settings)
        known = {"completions": [[{"role": "assistant", "content": text}]], "answer": [answer], **reward.settings}
        names = reward.function.__code__.co_varnames
        given = {name: value for name, value in known.items() if name in names}
        given |= {"finish_reasons": ["stop"]} if "finish_reasons" in names else {}
        total += section.weight * reward.function(**given)[0]
    return total


@pytest.mark.parametrize(
    ("recipe", "said", "points"),
    [
        ("gsm8k-three-passes/recipe.toml", GOOD.format("24"), 2.0 + 4 * 0.2),
        ("gsm8k-three-passes/recipe.toml", GOOD.format("24.0"), 1.5 + 4 * 0.2),
        ("gsm8k-three-passes/recipe.toml", "24", 0.0),
        ("gsm8k-qwen2.5-1.5b/recipe.toml", GOOD.format("24"), 2.0 + 4 * 0.05),
        ("gsm8k-qwen2.5-1.5b/recipe.toml", GOOD.format("25"), 4 * 0.05),
        ("gsm8k-qwen2.5-1.5b/recipe.eos.toml", GOOD.format("24"), 2.0 + 4 * 0.05 + 0.5),
        ("gsm8k-five-rewards/recipe.toml", GOOD.format("24"), 2.0 + 0.5 + 0.5 + 0.5 + 4 * 0.125),
        ("gsm8k-five-rewards/recipe.zh.toml", GOOD.format("24.0"), 0.5 + 0.5 + 4 * 0.125),
    ],
)
def test_what_a_completion_is_paid(recipe, said, points):
    assert paid(recipe, said) == pytest.approx(points)


def test_the_settings_that_the_tutorials_name():
    three = load_recipe(RECIPES / "gsm8k-three-passes/recipe.toml").recipe
    assert (three.learner.passes, three.train.steps, three.train.group_size) == (3, 500, 4)
    assert (three.sampling.max_new_tokens, three.algorithm.clip_low, three.algorithm.clip_high) == (400, 0.2, 0.2)
    outer = ["train.steps=1500", "reference.every=500", "reference.mix=1.0"]
    refreshed = load_recipe(RECIPES / "gsm8k-three-passes/recipe.toml", outer).recipe
    assert (refreshed.reference.every, refreshed.reference.mix) == (500, 1.0)
    large = load_recipe(RECIPES / "gsm8k-qwen2.5-1.5b/recipe.toml").recipe
    assert (large.train.group_size, large.sampling.max_new_tokens, large.task.hold_out) == (8, 400, 50)
    assert large.lora is None
    five = load_recipe(RECIPES / "gsm8k-five-rewards/recipe.zh.toml", ["model.dtype=fp16"]).recipe
    assert (five.lora.r, five.lora.targets, five.optimizer.lr) == (8, ["q_proj", "k_proj", "v_proj", "o_proj"], 5e-6)
    assert "请按以下格式响应" in five.task.system_prompt


def metrics(tmp_path, name):
    return [json.loads(line) for line in (tmp_path / "runs" / name / "metrics.jsonl").read_text().splitlines()]


def test_a_recipe_as_it_stands(hub, tmp_path):
    """Ten steps, twenty problems, both evaluations: nothing is overridden."""
    run(hub, tmp_path, "-m", "groupwise", "train", RECIPES / "gsm8k-five-rewards/recipe.zh.toml")
    rows = metrics(tmp_path, "gsm8k-five-rewards-zh")
    assert len(rows) == 10
    assert {"rewards/correctness/mean", "rewards/strict_format/mean", "kl"} <= set(rows[0])
    evaluations = (tmp_path / "runs" / "gsm8k-five-rewards-zh" / "evals.jsonl").read_text().splitlines()
    assert [json.loads(line)["label"] for line in evaluations] == ["before", "after"]


def test_demonstrations_first_and_a_reference_that_is_refreshed(hub, tmp_path):
    small = ["sft.steps=2", "train.steps=4", "sampling.max_new_tokens=16", "evaluation.problems=2"]
    further = [f"model.id={tmp_path}/runs/warm/model", "reference.every=2", "reference.mix=1.0", "run.name=after"]
    first = ["sft", str(RECIPES / "gsm8k-qwen2.5-1.5b/recipe.toml"), *small, "run.name=warm"]
    then = ["train", str(RECIPES / "gsm8k-three-passes/recipe.toml"), *small, *further]
    both = tmp_path / "both.py"
    both.write_text(f"from groupwise.cli.main import main\nassert main({first}) == 0\nassert main({then}) == 0\n")
    run(hub, tmp_path, both)
    assert len(metrics(tmp_path, "warm")) == 2
    assert len(metrics(tmp_path, "after")) == 4
