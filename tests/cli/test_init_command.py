"""`groupwise init`: what it writes loads, trains as it is, and says of every setting what the schema says."""

import re
import sys

import pytest

from groupwise.config import load_recipe, schema_rows
from groupwise.rewards import load_reward
from groupwise.runs.folder import RunFolder

KINDS = ["arithmetic", "gsm8k", "dataset"]
SETTING = re.compile(r"#([a-z_0-9]+ = .*)")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_loads(tmp_path, monkeypatch, groupwise, kind):
    monkeypatch.chdir(tmp_path)
    ended = groupwise("init", "mine", "--task", kind)
    assert ended.code == 0
    assert ended.out.splitlines()[-1] == "next: groupwise train mine/recipe.toml"
    loaded = load_recipe("mine/recipe.toml")
    assert loaded.recipe.task.kind == kind
    assert [reward.function for reward in loaded.recipe.rewards] == ["correctness", "reward.py:near_the_end"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_stands_there_and_every_commented_line_is_one(tmp_path, groupwise, kind):
    groupwise("init", tmp_path, "--task", kind)
    path = tmp_path / "recipe.toml"
    written = load_recipe(path)
    text = path.read_text()
    whole = SETTING.sub(r"\1", text).replace("#[lora]", "[lora]")
    # Those that no recipe can have beside the others: a reference that moves needs a KL term, a passing grade problems
    # that are drawn by difficulty.
    path.write_text(re.sub(r"^(every = 64|passing =).*$", "", whole, flags=re.MULTILINE))
    uncommented = load_recipe(path)
    left_out = {"reference.every", "problems.passing"}
    # What has no default has an example in its place.
    unset_no_more = {
        row.name for row in schema_rows(kind) if row.name.startswith(("task.", "lora.")) or row.default == "unset"
    }
    for name in (name for name in uncommented.origins if not name.startswith("rewards.1")):
        assert uncommented.origins[name] != "default" or name in left_out, f"{name} is not in the recipe"
        if name not in unset_no_more and name in written.origins:
            assert value(uncommented, name) == value(written, name), f"{name} is not left at its default"


def value(loaded, name):
    tree = loaded.recipe.model_dump()
    for part in name.split("."):
        tree = tree[int(part) if part.isdecimal() else part]
    return tree


@pytest.mark.parametrize("kind", ["arithmetic", "dataset"])
def test_what_is_written_trains_as_it_is(tmp_path, monkeypatch, small, groupwise, kind):
    monkeypatch.chdir(tmp_path)
    groupwise("init", "mine", "--task", kind)
    shorter = ["train.steps=1", "evaluation.problems=2", "sampling.max_new_tokens=8", "task.system_prompt=none"]
    ended = groupwise("train", "mine/recipe.toml", f"model.id={small}", *shorter)
    assert ended.code == 0, ended.err
    run = RunFolder.open(tmp_path / "runs" / kind)
    assert set(run.rollouts(1)[0].reward_parts) == {"correctness", "near_the_end"}


def test_the_example_reward_grades(tmp_path, groupwise):
    groupwise("init", tmp_path)
    judge = load_reward("reward.py:near_the_end", folder=tmp_path).function
    chat = [{"role": "assistant", "content": "9\nso it is 18."}]
    assert judge(completions=["72", "72\nno", "", chat], answer=["72", "72", "72", 18], prompts=[]) == [1, 0, 0, 1]


def test_nothing_is_overwritten(tmp_path, groupwise):
    (tmp_path / "reward.py").write_text("mine = True\n")
    ended = groupwise("init", tmp_path)
    assert ended.code == 1
    assert f"{tmp_path}/reward.py would be overwritten" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["reward.py"]
    taken = tmp_path / "my-task"
    groupwise("init", taken)
    assert ended.err.endswith("another folder: groupwise init my-task\n")
    assert groupwise("init", taken).err.endswith("another folder: groupwise init my-task-2\n")
    assert (tmp_path / "reward.py").read_text() == "mine = True\n"


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_a_folder_that_cannot_be_made(groupwise):
    ended = groupwise("init", "/proc/mine")
    assert ended.code == 1
    assert ended.err.startswith("cannot write /proc/mine")
