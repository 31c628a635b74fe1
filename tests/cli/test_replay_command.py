"""`groupwise replay`: a recorded step comes out the same, a change since is found, a refused step is refused."""

import json
import math

import pytest
from safetensors.torch import load_file, save_file

from groupwise.learner.learner import Learner
from groupwise.runs.folder import RunFolder
from groupwise.runs.parquet import read_table


@pytest.mark.parametrize("name", ["full", "adapter"])
def test_the_first_step_comes_out_the_same_whole(groupwise, trained, name):
    ended = groupwise("replay", trained[name], "--step", 1, "--json")
    assert ended.code == 0, ended.out
    told = {f["about"]: f for f in json.loads(ended.out)["findings"]}
    assert list(told) == ["rewards", "weights", "completions", "advantages", "loss", "grad_norm"]
    assert [f["values"]["compared"] for f in told.values()] == [8, 0, 8, 8, 1, 1]
    assert {f["values"].get("different", 0) for f in told.values()} == {0}


@pytest.mark.parametrize("name", ["full", "adapter"])
def test_so_does_a_later_one(groupwise, trained, name):
    ended = groupwise("replay", trained[name], "--step", 2)
    assert ended.code == 0, ended.err + ended.out
    assert "through the weights that training began with, and 1 steps learnt again" in ended.out
    for what in ("rewards     8", "completions 8", "advantages  8", "loss        1", "grad_norm   1"):
        assert f"{what} compared, all the same" in ended.out


def test_what_differs_is_named(groupwise, recipe, tmp_path):
    reward = tmp_path / "reward.py"
    reward.write_text("def size(completions, **kwargs):\n    return [float(len(c)) for c in completions]\n")
    recipe.write_text(recipe.read_text().replace('function = "correctness"', 'function = "reward.py:size"'))
    assert groupwise("train", recipe).code == 0
    assert groupwise("replay", "runs/toy", "--step", 2).code == 0, "with its own reward it is the same"
    (tmp_path / "other.py").write_text(
        "def size(completions, **kwargs):\n    return [len(c) + 1.0 for c in completions]\n"
    )
    recorded = tmp_path / "runs" / "toy" / "recipe.toml"
    recorded.write_text(recorded.read_text().replace("reward.py:size", "other.py:size"))
    ended = groupwise("replay", "runs/toy", "--step", 2)
    assert ended.code == 1
    assert "8 of 8 differ:" in ended.out
    assert "group 0 (arithmetic/" in ended.out and "was recorded" in ended.out
    assert "to mend" in ended.err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--step", 9), "no rollouts of step 9; it has those of the steps 1 to 2"),
        (("--bad-step", 9), "no refused step 9; it has none"),
        ((), "say which: --step N"),
        (("--step", 1, "--bad-step", 1), "say which: --step N"),
    ],
)
def test_steps_that_there_are_not(groupwise, trained, given, said):
    ended = groupwise("replay", trained["full"], *given)
    assert ended.code == 1
    assert said in ended.err


def test_a_refused_step_is_refused_again_and_a_mended_one_is_not(groupwise, recipe, monkeypatch):
    update = Learner.update

    async def spoilt(self, groups, **settings):
        parameter = next(iter(self.policy.trainable().values()))
        parameter.data[5] = math.nan
        return await update(self, groups, **settings)

    monkeypatch.setattr(Learner, "update", spoilt)
    ended = groupwise("train", recipe, "guards.preflight=false")
    assert ended.code == 1
    assert "`groupwise replay runs/toy --bad-step 1` does it again" in ended.err
    monkeypatch.setattr(Learner, "update", update)
    ended = groupwise("replay", "runs/toy", "--bad-step", 1)
    assert ended.code == 0, ended.err
    assert "refused again" in ended.out and "is nan" in ended.out
    path = RunFolder.open(recipe.parent / "runs/toy").path / "bad_step/000001/weights.safetensors"
    mended = {name: value.nan_to_num() for name, value in load_file(path).items()}
    save_file(mended, path)
    ended = groupwise("replay", "runs/toy", "--bad-step", 1)
    assert ended.code == 1
    assert "can be made now" in ended.out
    assert read_table(path.parent / "rollouts.parquet")
