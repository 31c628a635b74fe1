"""The worst case before the first step: it is the worst case, it changes nothing, and it fails early."""

import asyncio

import pytest
import torch
from safetensors import SafetensorError
from toy_runs import TIMES, Listener
from toy_runs import trainer_of as without_preflight

from frozen import FrozenGraphs
from groupwise.engines.choice import choose_decoder
from groupwise.engines.decoders import TrunkAndBranchDecoder
from groupwise.engines.embedded import EmbeddedEngine
from groupwise.engines.graphed import GraphedDecoder
from groupwise.errors import EngineError, LearnerError, RunError
from groupwise.runs.folder import RunFolder
from groupwise.training import plan as plan_file
from groupwise.training import preflight as file
from groupwise.training.calibrate import Calibration, calibrate
from groupwise.training.loop import learner_of, rollouts_of
from groupwise.training.plan import Shape, memory_plan, worst_micro_batch
from groupwise.training.statistics import Estimate
from toys import char_tokenizer


def trainer_of(tmp_path, *arguments, **settings):
    return without_preflight(tmp_path, *arguments, **{"guards.preflight": True, **settings})


def rows_of(tmp_path, name, **settings):
    run = trainer_of(tmp_path, **{"run.name": name, "lora.r": 2, "lora.dropout": 0.2, **settings}).train()
    return [{k: v for k, v in row.items() if k not in TIMES} for row in run.metrics.read()]


def test_a_run_is_the_same_with_it_and_without(tmp_path):
    settings = {"algorithm.beta": 0.1}
    assert rows_of(tmp_path, "with", **settings) == rows_of(
        tmp_path, "without", **settings, **{"guards.preflight": False}
    )


def test_it_says_what_it_did_and_leaves_nothing(tmp_path):
    heard = Listener()
    run = trainer_of(tmp_path, reporter=heard).train()
    (said,) = [text for text in heard.messages if text.startswith("preflight")]
    assert "prompts of 2 tokens and a micro-batch of 68" in said  # 2 problems of 2 + 4 x 8 tokens
    assert not list(run.path.glob("preflight*"))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Shape(2, 8, 2, 8)),
        ({"learner.token_budget": 40}, Shape(2, 8, 1, 4)),  # one group of 2 + 4 x 8
        ({"learner.token_budget": 20}, Shape(2, 8, 1, 2)),  # a group in pieces of 2 + 2 x 8
        ({"learner.token_budget": 5}, Shape(2, 8, 1, 1)),  # at least one
        ({"train.prompts_per_step": 8, "learner.updates_per_batch": 4}, Shape(2, 8, 2, 8)),
    ],
)
def test_the_worst_micro_batch_is_cut_as_the_learner_cuts(tmp_path, settings, expected):
    parts = trainer_of(tmp_path, **settings).parts
    assert worst_micro_batch(parts) == expected
    assert sum(len(tree.branches) for tree in expected.trees(50)) == expected.branches


def test_what_does_not_fit_fails_before_the_first_step(tmp_path, monkeypatch):
    async def no_room(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(EmbeddedEngine, "sample", no_room)
    with pytest.raises(EngineError, match=r"before the first step.*sampling 8 completions at once.*engine.max_rows"):
        trainer_of(tmp_path, **{"evaluation.before": False}).train()
    assert RunFolder.open(tmp_path / "toy").metrics.read() == []


def test_a_micro_batch_that_does_not_fit_is_halved_there(tmp_path):
    heard = Listener()
    trainer = trainer_of(tmp_path, reporter=heard)
    features = trainer.policy.features

    def scarce(trees):
        if torch.is_grad_enabled() and sum(len(tree.branches) for tree in trees) > 4:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes")
        return features(trees)

    trainer.policy.features = scarce
    run = trainer.train()
    assert len(run.metrics.read()) == 2
    told = [text for text in heard.messages if "out of memory" in text]
    assert len(told) == 1 and "learner.token_budget = 34" in told[0]
    assert heard.messages.index(told[0]) < next(i for i, t in enumerate(heard.messages) if t.startswith("preflight"))


def test_one_completion_that_does_not_fit_is_said_before_the_first_step(tmp_path):
    trainer = trainer_of(tmp_path)
    features = trainer.policy.features

    def never(trees):
        if torch.is_grad_enabled():
            raise MemoryError
        return features(trees)

    trainer.policy.features = never
    with pytest.raises(LearnerError, match="a single completion"):
        trainer.train()
    assert RunFolder.open(tmp_path / "toy").metrics.read() == []


def test_a_disk_that_gives_back_something_else_is_found(tmp_path, monkeypatch):
    plain = file.load_file

    def flipped(path):
        read = plain(path)
        name = next(iter(read))
        read[name].view(torch.uint8).flatten()[0] ^= 1
        return read

    monkeypatch.setattr(file, "load_file", flipped)
    with pytest.raises(RunError, match="came back other than it was written"):
        trainer_of(tmp_path).train()


def test_a_disk_without_room_for_the_weights_is_said_before_the_first_step(tmp_path, monkeypatch):
    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(file, "save_file", full)
    with pytest.raises(RunError, match=r"cannot write .*preflight.*No space left.*free some space"):
        trainer_of(tmp_path).train()


def test_the_plan_counts_what_a_run_keeps(tmp_path, monkeypatch):
    monkeypatch.setattr("groupwise.training.plan.choose_decoder", lambda policy: TrunkAndBranchDecoder)
    full = memory_plan(trainer_of(tmp_path).parts)
    weights = full.parts["gradients"]
    assert 0 < full.parts["weights"] - weights < 100  # the angles of the rotary embedding are a buffer
    assert full.parts["optimizer"] == 2 * weights
    assert full.parts["reference"] == 0
    assert full.parts["activations"] > 0 and full.fits
    # 2 layers x (keys and values) x 1 head of 8 numbers in fp32, 2 prompts of 2 tokens and 8 rows of 64 columns
    assert full.parts["keys and values"] == 2 * 2 * 8 * 4 * (2 * 2 + 8 * 64)
    assert full.parts["logits of a token"] == 3 * 8 * len(char_tokenizer()) * 4
    assert full.parts["gaps between them"] == full.parts["activations"] + full.parts["logits"]  # all blocks are small
    with_reference = memory_plan(trainer_of(tmp_path, **{"algorithm.beta": 0.1}).parts)
    assert with_reference.parts["reference"] == weights
    lora = memory_plan(trainer_of(tmp_path, **{"algorithm.beta": 0.1, "lora.r": 1}).parts)
    assert lora.parts["reference"] == 0
    assert lora.parts["optimizer"] < lora.parts["weights"]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (40, 40 / 34),  # one full group of 2 + 4 x 8 fits; shorter ones fill the budget
        (60, 60 / 34),
        (68, 1.0),  # both groups of a step
        (1000, 1.0),  # there is no more in a step
        (5, 1.0),  # a completion with its prompt is above it
    ],
)
def test_shorter_completions_fill_a_micro_batch_better(tmp_path, budget, expected):
    parts = trainer_of(tmp_path, **{"learner.token_budget": budget}).parts
    assert plan_file._filled(parts.recipe, worst_micro_batch(parts), budget) == pytest.approx(expected)


def test_learning_and_sampling_take_turns(tmp_path):
    """What one of them needs the other has had, gradients among it. The decoder is the one that will be chosen, and
    says what it holds."""
    settings = {"train.prompts_per_step": 60, "sampling.max_new_tokens": 60, "checkpoints.every": 1}
    parts = trainer_of(tmp_path, **settings).parts
    plan = memory_plan(parts)
    learning = sum(plan.parts[name] for name in ("activations", "logits", "gaps between them"))
    names = ("decoder", "keys and values", "reading prompts", "logits of a token", "checkpoint")
    sampling = sum(plan.parts[name] for name in names)
    held = choose_decoder(parts.policy)(parts.policy).holds(plan.shape.batch(240, 60))
    assert (plan.parts["decoder"], plan.parts["keys and values"]) == (held.weights, held.keys_and_values)
    assert plan.parts["checkpoint"] == 3 * plan.parts["gradients"]  # weights and moments
    assert plan.peak == sum(plan.parts.values()) - min(learning + plan.parts["gradients"], sampling)
    held = {phase: sum(parts.values()) for phase, parts in plan.phases().items()}
    assert plan.peak == held["always"] + max(held["learning"], held["sampling"])
    assert sum(held.values()) == sum(plan.parts.values())


def test_room_for_keys_that_stays_is_there_while_learning_too(tmp_path, monkeypatch):
    """As with CUDA graphs, which know it by its address."""
    monkeypatch.setattr("groupwise.training.plan.choose_decoder", lambda policy: GraphedDecoder)
    parts = trainer_of(tmp_path).parts
    # 2 layers x (keys and values) x 1 head of 8 numbers in fp32, for 2 prompts and 8 rows of 64 tokens each
    size = 2 * 2 * 8 * 4 * 64 * (2 + 8)
    reading = []
    for memory, phase in ((16 * size, "always"), (16 * size - 1, "sampling")):
        monkeypatch.setattr("groupwise.engines.graphed.graphs_of", lambda device, memory=memory: FrozenGraphs(memory))
        plan = memory_plan(parts)
        assert [name for name, held in plan.phases().items() if held.get("keys and values") == size] == [phase]
        reading.append(plan.sampling["reading prompts"])
    assert reading[0] > 0  # beside room that is there already; otherwise room for completions is not there yet
    assert reading[1] == max(reading[0] - size, 0)


@pytest.mark.parametrize(
    ("settings", "copied"),
    [
        ({"checkpoints.every": 2, "train.steps": 3}, True),
        ({"checkpoints.every": 3, "train.steps": 3}, False),
        ({"checkpoints.every": 0, "train.steps": 3}, False),
        ({"checkpoints.every": 2, "train.steps": 3, "checkpoints.background": False}, False),
        ({"checkpoints.every": 0, "train.steps": 3, "evaluation.every": 1}, True),
        ({"checkpoints.every": 0, "train.steps": 3, "evaluation.every": 1, "checkpoints.best": False}, False),
    ],
)
def test_a_checkpoint_beside_the_training_is_a_copy(tmp_path, settings, copied):
    parts = trainer_of(tmp_path, **settings).parts
    assert plan_file._saves_beside(parts.recipe) == copied


def test_a_plan_leaves_the_policy_as_it_was(tmp_path):
    parts = trainer_of(tmp_path).parts
    torch.manual_seed(1)
    state = torch.get_rng_state()
    memory_plan(parts)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in parts.policy.trainable().values())


@pytest.mark.parametrize("place", ["_held_once_warm", "_logits", ""])
def test_gradients_that_were_there_stay_whatever_happens(tmp_path, monkeypatch, place):
    parts = trainer_of(tmp_path).parts
    trained = list(parts.policy.trainable().values())
    for parameter in trained[1:]:
        parameter.grad = torch.ones_like(parameter)
    real = getattr(plan_file, place or "_logits")

    def fails(*args):
        real(*args)
        for parameter in trained:
            parameter.grad = torch.full_like(parameter, 5.0)  # a backward pass that broke off
        raise MemoryError

    if place:
        monkeypatch.setattr(plan_file, place, fails)
        with pytest.raises(MemoryError):
            memory_plan(parts)
    else:
        memory_plan(parts)
    assert trained[0].grad is None
    assert all(bool((parameter.grad == 1).all()) for parameter in trained[1:])


def test_activations_grow_with_the_micro_batch(tmp_path):
    sizes = [
        memory_plan(trainer_of(tmp_path, **{"train.prompts_per_step": n}).parts).parts["activations"] for n in (4, 8)
    ]
    assert 1.6 < sizes[1] / sizes[0] < 2.4


def calibration(signal, pass_1=None, reward=0.0):
    estimate = None if pass_1 is None else Estimate(pass_1, 0, 1, 8)
    return Calibration(1.0, 0.5, 8, 100.0, estimate, estimate, signal, reward, 8)


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (calibration(0.6, 0.4), "learnable"),
        (calibration(0.05, 0.98), "already solved"),
        (calibration(0.05, 0.01), "too hard"),
        (calibration(0.0, reward=1.0), "already solved"),
        (calibration(0.0, reward=0.0), "too hard"),
    ],
)
def test_the_verdict(found, word):
    assert found.verdict.word == word


def test_a_calibration_takes_a_part_where_the_whole_is_too_long(tmp_path):
    parts = trainer_of(tmp_path, **{"train.prompts_per_step": 12, "train.steps": 10}).parts
    engine = EmbeddedEngine(parts.policy, 256)
    found = asyncio.run(calibrate(parts, engine, learner_of(parts), rollouts_of(parts, engine), most_seconds=1e-6))
    assert found.problems == 2
    assert found.total_seconds == pytest.approx(10 * found.step_seconds)  # nothing is held out
    assert found.pass_1 is not None and found.baseline_problems == 2
