"""The decoder with few operations: the model's own numbers, from a copy of the weights that follows them."""

import asyncio

import pytest
import torch
import transformers as t
from peft import LoraConfig
from toy_engine import as_trees, gathered, reported, sampled, without_ends

from architectures import LLAMA, TRUNK_AND_BRANCH, alone, model_of, policy_of, tokens
from groupwise.config.sections import LoraSection
from groupwise.engines import fused
from groupwise.engines.choice import choose_decoder
from groupwise.engines.decoders import TrunkAndBranchDecoder
from groupwise.engines.embedded import EmbeddedEngine
from groupwise.engines.fused import FusedDecoder, UnfitError
from groupwise.types import Sampling

pytestmark = pytest.mark.usefixtures("by_torch")

FIT = ["qwen2", "llama", "llama, dynamic rope", "mistral", "mistral, long window", "smollm3"]
CALLS = [
    (tokens(length, i), 3, Sampling(max_new_tokens=12, temperature=0.8), range(3))
    for i, length in enumerate((5, 1, 17))
]


def close(policy, plain, tolerance, calls=CALLS):
    """What is sampled, against transformers' own forward of each sequence alone."""
    groups = sampled(policy, calls)
    found_T = torch.tensor([x for group in groups for c in group for x in c.logprobs], dtype=torch.float64)
    with torch.no_grad():
        expected_T = alone(plain, as_trees(calls, groups), temperature=0.8)
    assert float((found_T - expected_T).abs().max()) < tolerance


@pytest.mark.parametrize("name", TRUNK_AND_BRANCH)
def test_who_fits_and_that_its_numbers_are_the_models(name):
    policy = without_ends(policy_of(name))
    assert (choose_decoder(policy) is FusedDecoder) is (name in FIT)
    if name in FIT:
        close(policy, model_of(name), 1e-5)


def throughout(norm, x):
    """RMSNorm (arXiv 1910.07467) in the precision of its input; transformers' own goes down to fp32."""
    return norm.weight * x / (x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()


@pytest.fixture
def exact_norms(monkeypatch):
    for module in ("llama.modeling_llama.Llama", "qwen2.modeling_qwen2.Qwen2", "mistral.modeling_mistral.Mistral"):
        monkeypatch.setattr(f"transformers.models.{module}RMSNorm.forward", throughout)


BUILDS = {
    "every bias there is": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "no bias, tied": ("llama", {"tie_word_embeddings": True}),
    "a key head for each query head": ("llama", {"num_key_value_heads": 4}),
    "one key head": ("qwen2", {"num_key_value_heads": 1}),
    "heads wider than the model": ("llama", {"head_dim": 16}),
    "large eps": ("llama", {"rms_norm_eps": 0.3}),
    "window": ("mistral", {"sliding_window": 3}),
    "window in some layers": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "tie_word_embeddings": False},
    ),
}


@pytest.mark.parametrize(("name", "changes"), BUILDS.values(), ids=BUILDS)
def test_in_fp64_nothing_is_left_but_rounding(name, changes, exact_norms):
    policy = without_ends(policy_of(model_of(name, **changes).double()))
    assert choose_decoder(policy) is FusedDecoder
    close(policy, model_of(name, **changes).double(), 1e-12)


def test_late_joiners_over_many_columns(exact_norms):
    """Four generations of rows: columns are trimmed as the old ones leave, positions are not."""
    policy = without_ends(policy_of(model_of("mistral", sliding_window=9).double()))
    limits = (150, 20, 90, 7, 60, 130)
    calls = [
        (tokens(3 + 5 * i, i), 2, Sampling(max_new_tokens=n, temperature=0.8), range(2)) for i, n in enumerate(limits)
    ]

    async def staggered():
        engine, tasks = EmbeddedEngine(policy, max_rows=6), []
        for call in calls:
            tasks.append(asyncio.create_task(engine.sample(*call)))
            for _ in range(17):
                await asyncio.sleep(0)
        groups = await asyncio.gather(*tasks)
        assert isinstance(engine._decoder, FusedDecoder)
        assert engine._decoder._cache._columns <= 150
        return groups

    groups = asyncio.run(staggered())
    found_T = torch.tensor([x for group in groups for c in group for x in c.logprobs], dtype=torch.float64)
    with torch.no_grad():
        expected_T = alone(model_of("mistral", sliding_window=9).double(), as_trees(calls, groups), temperature=0.8)
    assert float((found_T - expected_T).abs().max()) < 1e-12


def stir(policy, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter += 0.04 * torch.randn(parameter.shape, generator=generator)


def learners(policy, groups):
    with torch.no_grad():
        return policy.logprobs(as_trees(CALLS, groups), temperature=0.8)[0]


@pytest.mark.parametrize("lora", [None, LoraSection(r=4)], ids=["full", "lora"])
def test_it_follows_the_weights(lora):
    policy = policy_of("qwen2", lora=lora)

    async def work():
        engine, decoders, before = EmbeddedEngine(policy), set(), None
        for seed in range(3):
            stir(policy, seed)
            groups = await gathered(engine, CALLS)
            decoders.add(engine._decoder)
            assert float((reported(groups) - learners(policy, groups)).abs().max()) < 1e-5
            if before is not None:
                assert float((learners(policy, before) - reported(before)).abs().max()) > 1e-2, "they have moved far"
            before = groups
        return decoders

    (decoder,) = asyncio.run(work())  # one loop, and so one decoder
    assert isinstance(decoder, FusedDecoder)


def test_several_adapters_and_layers_that_have_only_some_of_them():
    policy = policy_of("llama", lora=LoraSection(r=4))
    policy.adapted.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    policy.adapted.base_model.set_adapter(["default", "second"])
    stir(policy, 7)
    assert any("second" in name for name in policy.trainable())
    assert choose_decoder(policy) is FusedDecoder
    groups = sampled(policy, CALLS)
    assert float((reported(groups) - learners(policy, groups)).abs().max()) < 1e-5
    both = reported(groups)
    policy.adapted.base_model.set_adapter("default")
    assert float((learners(policy, groups) - both).abs().max()) > 1e-2, "the second one counts"
    again = sampled(policy, CALLS)
    assert float((reported(again) - learners(policy, again)).abs().max()) < 1e-5


def test_an_adapter_that_is_merged_or_switched_off_is_not_added_twice():
    policy = policy_of("llama", lora=LoraSection(r=4))
    stir(policy, 3)
    policy.adapted.merge_adapter()
    assert choose_decoder(policy) is FusedDecoder
    merged = sampled(policy, CALLS)
    assert float((reported(merged) - learners(policy, merged)).abs().max()) < 1e-5
    policy.adapted.unmerge_adapter()
    with policy.adapted.disable_adapter():
        assert choose_decoder(policy) is FusedDecoder
        off = sampled(policy, CALLS)
        assert float((reported(off) - learners(policy, off)).abs().max()) < 1e-5


def unfit(policy, says):
    with pytest.raises(UnfitError, match=says):
        FusedDecoder(policy)
    assert choose_decoder(policy) is TrunkAndBranchDecoder
    groups = sampled(policy, CALLS)
    assert float((reported(groups) - learners(policy, groups)).abs().max()) < 1e-5


def test_large_models_are_not_copied(monkeypatch):
    policy = policy_of("llama")
    size = sum(x.numel() * x.element_size() for x in policy.model.parameters())
    monkeypatch.setattr(fused, "LARGEST", size)
    assert choose_decoder(policy) is FusedDecoder
    monkeypatch.setattr(fused, "LARGEST", size - 1)
    unfit(policy, "the copy would be large")


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("gpt2", {}, "not of the build"),
        ("cohere", {}, "not of the build"),
        ("llama", {"hidden_act": "relu"}, "its activation is ReLU"),
    ],
)
def test_other_builds(name, changes, says):
    unfit(policy_of(model_of(name, **changes)), says)


def test_a_bias_in_some_of_what_is_multiplied_at_once():
    model = model_of("llama")
    for layer in model.model.layers:
        layer.mlp.up_proj.bias = torch.nn.Parameter(torch.ones(48))
    unfit(policy_of(model), "some of its projections have a bias and some have none")


def test_what_only_looks_alike_is_found_out_on_the_probe():
    """Granite has Llama's parts and other multipliers; partial rotary and layers without positions differ as well."""
    settings = {k: v for k, v in LLAMA.items() if k != "num_hidden_layers"}
    few_positions = t.SmolLM3ForCausalLM(t.SmolLM3Config(**settings, num_hidden_layers=4)).eval()
    for model in (model_of("granite"), few_positions):
        policy = policy_of(model)
        FusedDecoder(policy)
        assert choose_decoder(policy) is TrunkAndBranchDecoder


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FIT[:2])
def test_in_16_bits_rounding_is_all(name, dtype):
    policy = without_ends(policy_of(model_of(name).to(dtype)))
    assert choose_decoder(policy) is FusedDecoder
    groups = sampled(policy, CALLS)
    assert float((reported(groups) - learners(policy, groups)).abs().mean()) < (
        0.02 if dtype is torch.bfloat16 else 3e-3
    )


def test_in_16_bits_an_adapter_is_not_added_to_the_weights():
    """Beside a weight of 1 an update of 0.001 would be lost, in every batch anew: the sampler would stay behind."""
    policy = policy_of(model_of("llama").to(torch.bfloat16), lora=LoraSection(r=4))
    with pytest.raises(UnfitError, match="in 16 bits a small adapter would be rounded away"):
        FusedDecoder(policy)
    assert choose_decoder(policy) is TrunkAndBranchDecoder
