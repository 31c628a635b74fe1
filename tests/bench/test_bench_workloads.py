import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from models import tokenizer_of, write_model
from process import Graded
from workloads import SMALL, SMOLLM_135M, WORKLOADS, Shape, Workload, number_of, workload_of

BENCH = Path(__file__).parents[2] / "bench"
TOY = Shape(hidden=32, layers=2, heads=4, kv_heads=2, intermediate=64, vocabulary=300)


def test_prompts_have_the_length_that_is_said_and_are_all_different():
    for workload in WORKLOADS.values():
        prompts = workload.prompts()
        assert len(set(prompts)) == len(prompts)
        assert {workload.prompt[0] <= len(text) <= workload.prompt[1] for text in prompts} == {True}
        assert [number_of(text) for text in prompts] == list(range(len(prompts)))


def test_a_workload_survives_the_command_line():
    assert workload_of("W4") == WORKLOADS["W4"]
    assert workload_of(WORKLOADS["W4"].to_json()) == WORKLOADS["W4"]
    endless = replace(WORKLOADS["W1"], shape=replace(SMALL, ends_after=math.inf))
    assert workload_of(endless.to_json()) == endless


def test_micro_batches_divide_the_step():
    assert WORKLOADS["W1"].micro_batches() == [1, 2, 4, 8, 16]
    assert replace(WORKLOADS["W4"], problems=1).micro_batches() == [1, 2, 4]
    assert replace(WORKLOADS["W1"], group=3).micro_batches() == [1, 3, 6]


def test_a_character_is_a_token_in_both_families(tmp_path):
    for shape in (replace(SMALL, layers=1, vocabulary=500), replace(SMOLLM_135M, layers=1, vocabulary=500)):
        write_model(tmp_path / shape.family, shape)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / shape.family)
        assert len(tokenizer) == 500
        text = "0012 ab+c=3"
        assert len(tokenizer(text)["input_ids"]) == len(text)
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize(("ends_after", "expected"), [(20, 1 / 20), (math.inf, 0.0)])
def test_the_end_token_is_as_likely_as_was_asked_for(tmp_path, ends_after, expected):
    write_model(tmp_path, replace(TOY, ends_after=ends_after))
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = torch.randint(100, 300, (8, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        probability = model(tokens).logits.softmax(-1)[..., tokenizer_of(300).eos_token_id].mean().item()
    assert probability == pytest.approx(expected, rel=0.25, abs=1e-4)


def test_the_reward_sees_the_tokens_of_a_step():
    graded = Graded(group=2)
    rewards = graded(["0007ab", "0007ab", "0003c", "0003c"], ["x", "yy", "zz", ""], [[5], [5, 6], [5, 5], [1]])
    assert graded.facts == {"drawn": [7, 3], "prompts": [6, 5], "lengths": [1, 2, 2, 1]}
    assert rewards == [1.001, 1.002, 1.002, 0.0]


def test_our_side_measures_a_workload(tmp_path):
    workload = Workload("toy", "", TOY, problems=2, group=2, prompt=(10, 12), cap=6, passes=2, beta=0.1)
    write_model(tmp_path / "model", workload.shape)
    out = tmp_path / "out.json"
    command = [sys.executable, BENCH / "our_side.py", workload.to_json(), tmp_path / "model", out, "--steps", "2"]
    subprocess.run(command, check=True, capture_output=True)
    result = json.loads(out.read_text())
    assert len(result["steps"]) == 2
    for row in result["steps"]:
        assert row["seconds"] > row["sample"] + row["learn"] > 0
        assert len(row["lengths"]) == 4 and max(row["lengths"]) <= 6
        assert row["trained"] == 2 * sum(row["lengths"])
        assert row["prompts"] == [len(workload.prompts()[number]) for number in row["drawn"]]
        assert row["gap"] < 1e-5
    assert result["peak_mb"] > 100


def test_a_part_of_a_workload_has_the_same_prompts():
    assert replace(WORKLOADS["W4"], problems=1).prompts() == WORKLOADS["W4"].prompts()
