"""`groupwise export`: what it writes is the model that was trained, and plain transformers loads it."""

import hashlib
import json
import shutil

import pytest
import torch
from huggingface_hub import HfApi
from transformers import AutoModelForCausalLM, AutoTokenizer

from groupwise.config.sections import ModelSection
from groupwise.models.load import load_policy

IDS = torch.tensor([[9, 20, 30, 41, 7, 80]])


def logits_of(folder, **settings):
    model = AutoModelForCausalLM.from_pretrained(folder, **settings)
    assert "groupwise" not in model.config._attn_implementation
    with torch.inference_mode():
        return model(IDS).logits


def expected(run):
    policy = load_policy(ModelSection(id=str(run / "model"), attention="plain"))
    with torch.inference_mode():
        return policy.model(IDS).logits


@pytest.mark.parametrize("name", ["full", "adapter"])
def test_a_whole_model(trained, groupwise, tmp_path, name, small):
    out = tmp_path / "deep" / "out"
    ended = groupwise("export", trained[name], "--out", out)
    assert (ended.code, ended.err) == (0, "")
    assert torch.equal(logits_of(out), expected(trained[name]))
    assert not torch.allclose(logits_of(out), logits_of(small), atol=1e-4), "that is the untrained model"
    assert AutoTokenizer.from_pretrained(out).encode("1+2") == AutoTokenizer.from_pretrained(small).encode("1+2")
    digest = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    size = (out / "model.safetensors").stat().st_size
    assert f"  model.safetensors  {size:,} bytes  sha256 {digest}\n" in ended.out
    assert f'AutoModelForCausalLM.from_pretrained("{out}")' in ended.out
    assert [path.name for path in out.parent.iterdir()] == ["out"], "something was left beside it"


def test_an_adapter(trained, groupwise, tmp_path):
    out = tmp_path / "out"
    ended = groupwise("export", trained["adapter"], "--out", out, "--adapter")
    assert (ended.code, ended.err) == (0, "")
    assert not (out / "model.safetensors").exists()
    assert f"{out}  LoRA adapter, " in ended.out
    # transformers and peft load it by themselves, base and all; unmerged it computes the same up to rounding.
    assert torch.allclose(logits_of(out), expected(trained["adapter"]), atol=1e-5)


def test_an_adapter_of_a_run_that_trained_all_weights(trained, groupwise, tmp_path):
    ended = groupwise("export", trained["full"], "--out", tmp_path / "out", "--adapter")
    assert ended.code == 1
    assert "holds a whole model and no LoRA adapter" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_weights_keep_the_precision_in_which_they_are_stored(small, groupwise, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(small, dtype=torch.bfloat16)
    shutil.copytree(small, tmp_path / "half")
    model.save_pretrained(tmp_path / "half")
    assert groupwise("export", tmp_path / "half", "--out", tmp_path / "a").code == 0
    assert groupwise("export", tmp_path / "half", "model.dtype=fp32", "--out", tmp_path / "b").code == 0
    dtypes = [json.loads((tmp_path / out / "config.json").read_text())["dtype"] for out in "ab"]
    assert dtypes == ["bfloat16", "float32"]
    assert torch.equal(logits_of(tmp_path / "a", dtype="auto"), logits_of(tmp_path / "half", dtype="auto"))


def test_a_folder_that_holds_something_is_left_alone(trained, groupwise, tmp_path):
    (tmp_path / "out").mkdir()
    assert groupwise("export", trained["full"], "--out", tmp_path / "out").code == 0, "an empty one may be used"
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    ended = groupwise("export", trained["adapter"], "--out", tmp_path / "out")
    assert ended.code == 1
    assert "holds something already" in ended.err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere/at-all", "--out", "out"], 'model.id = "nowhere/at-all"'),
        ([".", "--out", "out"], "Nor is it a model"),
        (["recipe.toml", "--out", "/proc/out"], "cannot write /proc/out"),
        (["recipe.toml", "--out", "out", "--private"], "it goes with --push-to-hub"),
        (["recipe.toml"], "--out"),
    ],
)
def test_what_cannot_be_exported(recipe, groupwise, arguments, said):
    ended = groupwise("export", *arguments)
    assert ended.code == 1
    assert said in ended.err
    assert [path.name for path in recipe.parent.iterdir()] == ["recipe.toml"]


def test_without_network_or_login_nothing_is_written(trained, groupwise, tmp_path):
    ended = groupwise("export", trained["full"], "--out", tmp_path / "out", "--push-to-hub", "me/mine")
    assert ended.code == 1
    (line,) = ended.err.splitlines()
    assert line.startswith("--push-to-hub me/mine: ")
    assert "nothing was written or uploaded" in line
    assert line.endswith("`hf auth login`")
    assert list(tmp_path.iterdir()) == []


def test_the_hub_gets_all_files(trained, groupwise, tmp_path, monkeypatch):
    asked = []

    def create_repo(api, name, **settings):
        asked.append((name, settings))
        return f"https://hub/{name}"

    def upload_folder(api, *, repo_id, folder_path, **settings):
        asked.append((repo_id, sorted(path.name for path in folder_path.iterdir())))

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    ended = groupwise("export", trained["full"], "--out", tmp_path / "out", "--push-to-hub", "me/mine", "--private")
    assert ended.code == 0, ended.err
    assert asked[0] == ("me/mine", {"private": True, "exist_ok": True})
    assert asked[1][0] == "me/mine"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(asked[1][1])
    assert ended.out.endswith("uploaded to https://hub/me/mine\n")


def test_an_upload_that_breaks_off_leaves_the_model(trained, groupwise, tmp_path, monkeypatch):
    def upload_folder(api, **settings):
        raise ConnectionError("the line\nwent dead")

    monkeypatch.setattr(HfApi, "create_repo", lambda api, name, **settings: f"https://hub/{name}")
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    out = tmp_path / "out"
    ended = groupwise("export", trained["full"], "--out", out, "--push-to-hub", "me/mine")
    assert ended.code == 1
    assert f"the line went dead (the model is whole in {out}; to try again: hf upload me/mine {out})" in ended.err
    assert torch.equal(logits_of(out), expected(trained["full"]))
