"""What the tests of the commands share: a small model, a recipe for it, and a way to call `groupwise`."""

import sys
from contextlib import chdir
from dataclasses import dataclass

import pytest

from groupwise.cli.main import main
from groupwise.models.small import write_small_model

RECIPE = """\
[model]
id = "{model}"
[task]
kind = "arithmetic"
digits = 1
train_size = 30
eval_size = 6
[[rewards]]
function = "correctness"
[[rewards]]
function = "length"
weight = 0.1
settings = {{ target = 5 }}
[train]
steps = 2
prompts_per_step = 2
group_size = 4
[sampling]
max_new_tokens = 8
[sft]
steps = 2
rows_per_step = 4
[optimizer]
lr = 1e-3
[run]
name = "toy"
"""


@dataclass
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "small"
    write_small_model(folder, hidden=32, layers=2, heads=2, context=256)
    return folder


@pytest.fixture
def groupwise(capsys, monkeypatch):
    """Calls a command in this process, as the shell would."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["groupwise", *map(str, arguments)])
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return call


@pytest.fixture
def recipe(small, tmp_path, monkeypatch):
    """A recipe of seconds, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(model=small))
    return path


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    """A run that trained all weights, and one that trained a LoRA adapter, by name."""
    folder = tmp_path_factory.mktemp("trained")
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(model=small))
    with chdir(folder):
        assert main(["train", "recipe.toml", "run.name=full"]) == 0
        assert main(["train", "recipe.toml", "run.name=adapter", "lora.r=2", "optimizer.lr=0.1"]) == 0
    return {name: folder / "runs" / name for name in ("full", "adapter")}
