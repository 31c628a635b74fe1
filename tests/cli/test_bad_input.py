"""Every mistake that a user can make ends in one message and exit code 1; what was written before it stays."""

import json
from pathlib import Path

import pytest

from groupwise.runs.folder import RunFolder

REWARD = """\
def short(completions, **columns):
    return [1.0]

def words(completions, **columns):
    return ["good" for _ in completions]

def nan(completions, **columns):
    return [float("nan") for _ in completions]

def late(completions, trainer_state, answer, **columns):
    return [float(answer[i] if trainer_state.global_step < 2 else {}["gold"]) for i in range(len(completions))]

def leaves(completions, **columns):
    import sys
    sys.exit(3)
"""


@pytest.fixture
def bench(recipe):
    """The recipe's folder with a reward file and some broken data beside it."""
    folder = recipe.parent
    (folder / "reward.py").write_text(REWARD)
    (folder / "questions.jsonl").write_text(json.dumps({"question": "1+1", "answer": "2"}) + "\n")
    (folder / "empty.jsonl").write_text("")
    (folder / "two.jsonl").write_text('{"prompt": "1+1", "answer": "2"}\n{"prompt": "1+2", "answer": "3"}\n')
    (folder / "long.jsonl").write_text(json.dumps({"prompt": "1+" * 200, "answer": "2"}) + "\n")
    (folder / "empty_folder").mkdir()
    return folder


def refused(ended, *words):
    """One message, on standard error only, that says all of this; no traceback."""
    assert ended.code == 1, ended
    assert "Traceback" not in ended.err
    assert "Error:" not in ended.err.replace("KeyError:", ""), "an exception's name tells a user nothing"
    for word in words:
        assert word in ended.err, ended.err
    return ended


def data(path):
    return f'task={{kind = "dataset", path = "{path}"}}'


def test_a_model_folder_that_is_not_there(bench, groupwise):
    refused(
        groupwise("train", "recipe.toml", "model.id=./nowhere"),
        f'model.id = "{Path.cwd() / "nowhere"}"',
        "no such folder",
    )


def test_a_model_that_neither_disk_nor_hub_has(bench, groupwise):
    refused(groupwise("train", "recipe.toml", "model.id=me/nowhere"), 'model.id = "me/nowhere"', "Check the spelling")


def test_a_model_folder_without_a_model(bench, groupwise):
    refused(groupwise("train", "recipe.toml", "model.id=empty_folder"), "empty_folder", "no config.json")


def test_a_dataset_without_the_column(bench, groupwise):
    refused(
        groupwise("train", "recipe.toml", data("questions.jsonl")),
        "row 0 has no column 'prompt'",
        "question, answer",
        'task.columns = {prompt = "question"}',
    )


def test_an_empty_split(bench, groupwise):
    refused(groupwise("train", "recipe.toml", data("empty.jsonl")), "empty.jsonl has no rows")


def test_nothing_is_left_to_train_on(bench, groupwise):
    held_out = 'task={kind = "dataset", path = "two.jsonl", hold_out = 2}'
    refused(groupwise("train", "recipe.toml", held_out), "hold_out = 2 leaves nothing to train on")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("short", ["returned 1 values for 6 completions"]),
        ("words", ["returned 'good' (str) for row 0"]),
        ("nan", ["returned nan for row 0", "a finite number"]),
        ("leaves", ["raised SystemExit: 3", "reward.py:15"]),
    ],
)
def test_a_reward_that_returns_what_no_reward_is(bench, groupwise, name, words):
    ended = groupwise("train", "recipe.toml", f'rewards=[{{function = "reward.py:{name}"}}]')
    refused(ended, f"reward function '{name}'", *words)
    assert RunFolder.open(bench / "runs/toy").status == "failed"


def test_a_reward_that_raises_is_named_with_its_row_and_nothing_written_is_lost(bench, groupwise):
    late = 'rewards=[{function = "reward.py:late"}]'
    ended = groupwise("train", "recipe.toml", late, "train.steps=3", "evaluation.before=false")
    refused(ended, "reward function 'late' raised KeyError: 'gold'", "reward.py:11, in ", "raises on row 0", "=?")
    run = RunFolder.open(bench / "runs/toy")
    assert run.rollout_steps() == [1, 2]
    assert [row.outcome for row in run.rollouts(2)] == ["unknown"] * 8
    assert [row["step"] for row in run.metrics.read()] == [1]
    assert "KeyError" in run.identity["error"]


def test_a_reward_that_is_not_there(bench, groupwise):
    refused(groupwise("train", "recipe.toml", 'rewards=[{function = "reward.py:shrt"}]'), "has no 'shrt'", "'short'")


def test_no_reward_at_all(bench, groupwise):
    ended = refused(groupwise("train", "recipe.toml", data("two.jsonl"), "rewards=[]"), "rewards: none is named")
    assert ended.out == ""


def test_a_group_of_one(bench, groupwise):
    refused(groupwise("train", "recipe.toml", "train.group_size=1"), "train.group_size: got 1", "at least 2")


def test_an_unknown_variant(bench, groupwise):
    refused(
        groupwise("train", "recipe.toml", "algorithm.surrogate=clipped_ration"),
        'surrogate = "clipped_ration"',
        'Did you mean "clipped_ratio"?',
    )
    assert not (bench / "runs/toy/run.json").exists(), "a run began that could not go on"


def test_a_prompt_longer_than_the_context(bench, groupwise):
    refused(groupwise("train", "recipe.toml", data("long.jsonl")), "more than 248 tokens", "the shortest has 400")
    refused(groupwise("train", "recipe.toml", data("long.jsonl"), "task.long_prompts=error"), "long/train/0")
    refused(groupwise("train", "recipe.toml", "sampling.max_new_tokens=300"), "no room for prompts")


def test_a_chat_template_that_is_missing(bench, groupwise):
    refused(groupwise("train", "recipe.toml", "task.prompt_style=chat"), "has no chat template", "'plain' or 'auto'")


def test_a_run_folder_that_cannot_be_written(bench, groupwise):
    refused(groupwise("train", "recipe.toml", "run.folder=/proc/runs"), "cannot write /proc/runs", "run.folder")


def test_a_run_folder_that_holds_another_run(bench, groupwise):
    assert groupwise("train", "recipe.toml", "train.steps=1").code == 0
    before = {path: path.read_bytes() for path in (bench / "runs/toy").rglob("*") if path.is_file()}
    refused(groupwise("train", "recipe.toml", "seed=7"), "seed", "run.name=")
    assert {path: path.read_bytes() for path in (bench / "runs/toy").rglob("*") if path.is_file()} == before


def test_several_mistakes_in_a_recipe_are_told_together(bench, groupwise):
    (bench / "recipe.toml").write_text('[model]\nid = 3\n[task]\nkind = "arithmetic"\n[train]\ngroupsize = 4\n')
    ended = refused(groupwise("train", "recipe.toml"), "recipe.toml:2  model.id", "recipe.toml:6  train.groupsize")
    assert "Did you mean train.group_size?" in ended.err
    assert ended.out == ""


def test_a_task_without_demonstrations(bench, groupwise):
    refused(groupwise("sft", "recipe.toml", data("two.jsonl")), "no demonstrations of its own", "sft.path")
    refused(groupwise("sft", "recipe.toml", "sft.path=questions.jsonl"), "has no column 'prompt'")
    assert not (bench / "runs/toy/run.json").exists(), "a run began that could not go on"


@pytest.mark.parametrize("setting", ["run.trackers=['wandb']", "optimizer.kind=adamw_8bit"])
def test_a_package_that_is_not_installed_is_told_before_the_run_begins(bench, groupwise, setting, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    refused(groupwise("train", "recipe.toml", setting), setting.partition("=")[0], "pip install")
    assert not (bench / "runs/toy/run.json").exists()


def test_a_full_disk_at_the_end_is_told_and_the_numbers_stay(bench, groupwise, monkeypatch):
    from transformers import PreTrainedModel

    def no_room(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", no_room)
    refused(groupwise("train", "recipe.toml"), "cannot be written to", "No space left")
    assert len(RunFolder.open(bench / "runs/toy").metrics.read()) == 2


def test_a_demo_that_has_nowhere_to_write(groupwise):
    refused(groupwise("demo", "--folder", "/proc/runs"), "/proc/runs")
