"""gsm8k-mini: its problems are right, its test is new, and its two recipes run on what it writes."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from groupwise.config import load_recipe
from groupwise.tasks.gsm8k import gsm8k
from groupwise.training.trainer import Trainer

RECIPE = Path(__file__).parents[2] / "recipes" / "gsm8k-mini"


@pytest.fixture(scope="module")
def make():
    spec = importlib.util.spec_from_file_location("gsm8k_mini", RECIPE / "make.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["gsm8k_mini"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(make, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini")
    sys.argv = ["make.py", "--out", str(folder), "--rows", "200"]
    make.main()
    return folder


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_step_follows_from_the_one_before(made):
    for row in lines(made / "data" / "train.jsonl") + lines(made / "data" / "test.jsonl"):
        *steps, last = row["answer"].split("\n")
        told = [int(number) for number in re.findall(r"\d+", row["question"])]
        value = told.pop(0)
        for step, number in zip(steps, told, strict=True):
            left, kind, right, result = re.fullmatch(r"(\d+)(.)(\d+)=<<\1.\3=(\d+)>>\4", step).groups()
            assert (int(left), int(right)) == (value, number)
            value = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}[kind](value, number)
            assert value == int(result)
        assert last == f"#### {value}"


def test_no_sentence_of_the_test_is_worded_as_one_trained_on(make, made):
    for kind in make.PARTS:
        kept, trained = (set(make.templates(kind, for_the_test=side)) for side in (True, False))
        assert kept and not kept & trained
        assert 0.05 < len(kept) / len(kept | trained) < 0.35
    words = re.compile("|".join([*make.NAMES, *make.THINGS, r"\d+"]))
    trained, asked = (
        {
            words.sub("_", sentence)
            for row in lines(made / "data" / f"{side}.jsonl")
            for sentence in re.findall(r"[^.?]+[.?]", row["question"])
        }
        for side in ("train", "test")
    )
    assert len(asked) > 20
    assert not {sentence.strip() for sentence in asked} & {sentence.strip() for sentence in trained}


def test_it_is_gsm8k_to_the_task_and_the_tokenizer_loses_nothing(made):
    task = gsm8k(path="data", folder=made)
    assert (len(task.train), len(task.held_out)) == (200, 512)
    tokenizer = AutoTokenizer.from_pretrained(made / "untrained")
    for row in lines(made / "data" / "demonstrations.jsonl"):
        text = row["prompt"][0]["content"] + row["completion"]
        assert tokenizer.decode(tokenizer.encode(text)) == text
    rows = lines(made / "data" / "demonstrations.jsonl")[:200]  # behind them are bare sums
    worked = [(p, row) for p, row in zip(task.train, rows, strict=True) if "=" in row["completion"]]
    assert 0.25 < len(worked) / 200 < 0.55
    assert all(row["completion"].endswith(f"#### {problem.columns['answer']}") for problem, row in worked)
    assert all(re.fullmatch(r"\n#### \d+", row["completion"]) for row in rows if "=" not in row["completion"])


def test_both_recipes_run(made, monkeypatch):
    monkeypatch.chdir(made)
    few = ["evaluation.problems=4", f'task.path="{made / "data"}"']
    first = [f'model.id="{made / "untrained"}"', "sft.steps=2", f'sft.path="{made / "data" / "demonstrations.jsonl"}"']
    warm = Trainer.from_recipe(load_recipe(RECIPE / "warm_start.toml", [*few, *first])).sft()
    second = [f'model.id="{warm.model_path}"', "train.steps=1", "sampling.max_new_tokens=8"]
    run = Trainer.from_recipe(load_recipe(RECIPE / "recipe.toml", [*few, *second])).train()
    assert run.status == "finished"
    assert len(run.evaluations()) == 2
