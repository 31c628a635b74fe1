"""gsm8k-mini: its problems are right, its test is new, and its two recipes run on what it writes."""

import importlib.util
import json
import random
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
        value = int(re.search(r"\d+", row["question"])[0])
        for step in steps:
            left, kind, right, result = re.fullmatch(r"(\d+) (.) (\d+) = <<\1.\3=(\d+)>>\4", step).groups()
            assert int(left) == value
            value = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}[kind](value, int(right))
            assert value == int(result)
            assert right in row["question"].split() or f"{right} " in row["question"]
        assert last == f"#### {value}"


def test_no_way_of_telling_is_on_both_sides(make):
    rng = random.Random(3)
    drawn = [make.drawn_template(rng) for _ in range(4000)]
    test = {template for template in drawn if template.is_for_the_test}
    assert 0.15 < len([t for t in drawn if t.is_for_the_test]) / len(drawn) < 0.25
    assert not test & {template for template in drawn if not template.is_for_the_test}
    template = make.Template(0, (("+", 0), ("*", 1)), 3)
    row = next(row for _ in range(99) if (row := make.told(template, rng)) is not None)
    assert re.fullmatch(
        r"(\w+) has \d+ (\w+)\. \1 buys \d+ more \2\. A magician .* How many \2 is that\?", row["question"]
    )


def test_it_is_gsm8k_to_the_task_and_the_tokenizer_loses_nothing(made):
    task = gsm8k(path="data", folder=made)
    assert (len(task.train), len(task.held_out)) == (200, 512)
    tokenizer = AutoTokenizer.from_pretrained(made / "untrained")
    for row in lines(made / "data" / "demonstrations.jsonl"):
        text = row["prompt"][0]["content"] + row["completion"]
        assert tokenizer.decode(tokenizer.encode(text)) == text
    stated = [row for row in lines(made / "data" / "demonstrations.jsonl") if "=" not in row["completion"]]
    assert 0.45 < len(stated) / 200 < 0.75
    for problem, row in zip(task.train, lines(made / "data" / "demonstrations.jsonl"), strict=True):
        assert row["completion"].endswith(f"#### {problem.columns['answer']}")


def test_both_recipes_run(made, monkeypatch):
    monkeypatch.chdir(made)
    few = ["evaluation.problems=4", f'task.path="{made / "data"}"']
    first = [f'model.id="{made / "untrained"}"', "sft.steps=2", f'sft.path="{made / "data" / "demonstrations.jsonl"}"']
    warm = Trainer.from_recipe(load_recipe(RECIPE / "warm_start.toml", [*few, *first])).sft()
    second = [f'model.id="{warm.model_path}"', "train.steps=1", "sampling.max_new_tokens=8"]
    run = Trainer.from_recipe(load_recipe(RECIPE / "recipe.toml", [*few, *second])).train()
    assert run.status == "finished"
    assert len(run.evaluations()) == 2
