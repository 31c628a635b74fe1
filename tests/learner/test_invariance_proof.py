"""The proof that ships with the package: any order, budget, attention, checkpointing and split over two processes give
one gradient, to 1e-10 in float64; and it fails where it should."""

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from groupwise.config.presets import PRESETS
from groupwise.config.sections import AlgorithmSection, LoraSection, ModelSection
from groupwise.errors import LearnerError
from groupwise.learner import gradients
from groupwise.learner.gradients import Bench, Subject, Way
from groupwise.learner.invariance import CLOSE, Outcome, difference, invariance, ways
from groupwise.learner.two_ranks import TwoRanks
from groupwise.models.double import in_double
from toys import char_tokenizer, tiny_model

CASES = {
    # what depends on counts of the whole update, and on all of its tokens, and a KL, a bonus and a correction on top
    "grpo": {"beta": 0.1, "kl_ratio": True},
    "scale_rl": {"entropy": 0.05, "correction": "token_truncate"},
    "clip_cov": {
        "settings": {"cov_share": 0.2, "cov_low": 0.01},
        "filters": ["top_entropy"],
        "advantage": "reinforce_pp",
        "weights": "prompt_mean",
    },
}
PLACES = tuple(range(len(gradients.SIZES)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for kind in ("gpt2", "qwen2"):
        folder = made[kind] = tmp_path_factory.mktemp(kind)
        tiny_model(kind).save_pretrained(folder)
        char_tokenizer().save_pretrained(folder)
    return made


def subject(folder, preset="grpo", lora=None, **changed):
    section = AlgorithmSection(preset=preset, **{**PRESETS[preset], **CASES.get(preset, {}), **changed})
    adapter = None if lora is None else LoraSection(r=lora)
    return Subject(model=ModelSection(id=str(folder), device="cpu"), algorithm=section, lora=adapter)


@pytest.fixture(scope="module")
def benches(folders):
    """A model, ready to be asked, and its plainest gradient, by algorithm."""
    made = {preset: Bench(subject(folders["qwen2"], preset)) for preset in CASES}
    return {preset: (bench, bench.gradient(Way(PLACES))) for preset, bench in made.items()}


@pytest.fixture(scope="module")
def pair(folders):
    """Two processes with the algorithm that looks at all tokens of an update."""
    with TwoRanks(subject(folders["qwen2"], "clip_cov")) as ranks:
        yield ranks


def a_way():
    return st.builds(
        Way,
        order=st.permutations(PLACES).map(tuple),
        token_budget=st.sampled_from([1, 17, 40, 1 << 20]),
        chunk=st.sampled_from([2, 1024]),
        padded=st.booleans(),
        checkpointing=st.booleans(),
    )


# Examples are not made smaller: each costs seconds, and a way is small already.
@settings(max_examples=10, phases=[Phase.generate])
@given(preset=st.sampled_from(list(CASES)), way=a_way())
def test_every_way_gives_one_gradient(benches, preset, way):
    bench, plainest = benches[preset]
    assert len(plainest) == 2 * len(bench.policy.trainable())  # of two updates
    assert max(float(gradient.abs().max()) for gradient in plainest.values()) > 1e-3
    assert difference(bench.gradient(way), plainest) <= CLOSE


@settings(max_examples=3, phases=[Phase.generate])
@given(way=a_way(), held=st.tuples(*[st.integers(0, 1) for _ in PLACES]))
def test_so_does_every_split_over_two_processes(benches, pair, way, held):
    split = Way(way.order, way.token_budget, way.chunk, way.padded, way.checkpointing, held)
    assert difference(pair.gradient(split), benches["clip_cov"][1]) <= CLOSE


def test_the_proof_of_a_whole_subject_names_every_way(folders):
    outcomes = list(invariance(subject(folders["gpt2"], lora=4), splits=0))
    names = [outcome.name for outcome in outcomes]
    assert names[:4] == [
        "groups backwards",
        "a rollout at a time",
        "30 tokens at a time",
        "logits of 3 tokens at a time",
    ]
    assert {"padded", "checkpointing"} <= set(names)
    assert all(outcome.ok for outcome in outcomes), outcomes


def test_the_comparison_can_fail(folders):
    bench = Bench(subject(folders["gpt2"]))
    plainest = bench.gradient(Way(PLACES))
    without = bench.gradient(Way(PLACES[:-1]))
    assert difference(without, plainest) > 1e-3
    assert not Outcome("a group less", difference(without, plainest)).ok
    first = next(iter(plainest))
    assert difference({first: plainest[first]}, plainest) == float("inf")
    assert difference({"w": torch.tensor([1.0, 4.0])}, {"w": torch.tensor([1.0, 5.0])}) == pytest.approx(0.2)


def test_a_surrogate_that_looks_at_its_neighbours_is_found_out(folders, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def loud(log_ratio_T, advantages_T):\n"
        "    return -(advantages_T / (advantages_T.abs().mean() + 1e-3)) * log_ratio_T.exp()\n"
    )
    whole = subject(folders["gpt2"], surrogate="mine.py:loud", clip_low=0.2, clip_high=0.2)
    bench = Bench(Subject(model=whole.model, algorithm=whole.algorithm, folder=tmp_path))
    plainest = bench.gradient(Way(PLACES))
    apart = {name: difference(bench.gradient(way), plainest) for name, way in ways(bench).items()}
    assert apart["groups backwards"] <= CLOSE
    assert apart["a rollout at a time"] > 1e-3


def test_what_says_nothing_proves_nothing(folders, tmp_path):
    (tmp_path / "mine.py").write_text("def none(rewards_QG):\n    return [[0.0] * len(r) for r in rewards_QG]\n")
    silent = subject(folders["gpt2"], "dapo", advantage="mine.py:none")
    with pytest.raises(LearnerError, match="the gradient is 0 everywhere"):
        next(invariance(Subject(model=silent.model, algorithm=silent.algorithm, folder=tmp_path)))


def test_subjects_and_ways_cross_to_other_processes(folders):
    whole = subject(folders["gpt2"], "scale_rl", lora=3)
    assert Subject.from_json(whole.to_json()) == whole
    for way in (Way((2, 0, 1)), Way((0, 1), 30, 7, True, True, (1, 0))):
        assert Way.from_json(way.to_json()) == way


def test_in_double_nothing_is_smaller():
    x = torch.ones(2, dtype=torch.float64)
    with in_double():
        assert x.float().dtype == x.to(torch.float32).dtype == x.bfloat16().dtype == torch.float64
        assert torch.softmax(x, -1, dtype=torch.float32).dtype == torch.float64
        assert torch.zeros(2, dtype=torch.float16).dtype == torch.float64
    assert x.float().dtype == torch.float32
