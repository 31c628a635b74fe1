from dataclasses import replace

import pytest

from arithmetic import Step, adapter_parameters, body_parameters, by_part, decoding_rows, operations
from models import random_model, tokenizer_of
from workloads import SMALL, SMOLLM_135M, WORKLOADS, Shape, Workload

TOY = Shape(hidden=4, layers=1, heads=2, kv_heads=1, intermediate=8, vocabulary=10)
STEP = Step(prompts=[3], completions=[[2, 1]])
WORK = Workload("toy", "", TOY, problems=1, group=2, prompt=(3, 3), cap=2)


def test_parameters_of_the_body_are_those_of_transformers():
    # q and o are 4x4, k and v 4x2, the MLP 3 x 4x8.
    assert body_parameters(TOY) == 2 * 16 + 2 * 8 + 3 * 32 == 144
    for shape in (SMALL, replace(SMOLLM_135M, layers=2)):
        model = random_model(shape, tokenizer_of(shape.vocabulary))
        layers = model.model.layers.named_parameters()
        assert body_parameters(shape) == sum(p.numel() for name, p in layers if p.ndim == 2)


def test_adapter_parameters_are_rank_times_both_sides_of_each_matrix():
    # rank 2: q 8, k 6, v 6, o 8, gate 12, up 12, down 12
    assert adapter_parameters(TOY, 2) == 2 * (8 + 6 + 6 + 8 + 12 + 12 + 12)


def test_tokens_of_a_step():
    assert STEP.generated == 3
    assert STEP.read == 3 + 1 + 0  # the last token of a completion is drawn and never read
    assert STEP.pairs == (1 + 2 + 3) + (3 + 1)  # the one branch token that is read sees the prompt and itself


def test_operations_of_a_step():
    counted = operations(WORK, STEP)
    forward = 2 * 144 * 4 + 2 * 40 * 3
    attention = 4 * 4 * 1 * 10
    assert (counted.sampling, counted.sampling_attention) == (forward, attention)
    assert (counted.learning, counted.learning_attention) == (3 * forward, 3 * attention)
    assert counted.total == 4 * (forward + attention)


def test_three_passes_with_a_reference_are_three_updates_and_one_scoring():
    counted = operations(replace(WORK, passes=3, beta=0.04), STEP)
    once = operations(WORK, STEP)
    assert counted.learning == 3 * once.learning + once.sampling
    assert counted.learning_attention == 10 * once.sampling_attention
    assert counted.sampling == once.sampling


def test_frozen_weights_cost_four_and_adapters_six():
    counted = operations(replace(WORK, lora=2), STEP)
    assert counted.learning == (4 * 144 + 6 * 128) * 4 + 4 * 40 * 3


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_step_costs_more_than_its_prompts_alone(name):
    workload = WORKLOADS[name]
    prompts = [workload.prompt[1]] * workload.problems
    none = operations(workload, Step(prompts, [[1] * workload.group] * workload.problems))
    full = operations(workload, Step(prompts, [[workload.cap] * workload.group] * workload.problems))
    assert full.total > none.total > 0


def test_parts_of_a_step_and_the_rows_of_its_tail():
    """Two prompts of 3 tokens, completions of 3 and 2, of 20 and 1: 19 decoding steps, the first of 3 rows, the second
    of 2, and so on of 1."""
    step = Step([3, 3], [[3, 2], [20, 1]])
    workload = replace(WORKLOADS["W1"], passes=2)
    parts, whole = by_part(workload, step), operations(workload, step)
    fed, pairs = 2 + 1 + 19 + 0, (2 * 3 + 3) + (3 + 1) + (19 * 3 + 190)
    tokens = 2 * body_parameters(SMALL) * fed + 2 * SMALL.vocabulary * SMALL.hidden * 26
    assert parts["decode"] == {"compiled step": tokens + 4 * SMALL.hidden * SMALL.layers * pairs}
    assert parts["learn"] == {"GEMM": whole.learning, "attention": whole.learning_attention}
    assert decoding_rows(step) == {"steps": 19, "mean": (3 + 2 + 17) / 19, "few": 1.0}
    assert decoding_rows(Step([3], [[2] * 17]))["few"] == 0
