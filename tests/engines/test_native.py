"""The decoder in compiled code: the model's own numbers, whatever the sizes, from pages that are used again."""

import asyncio
import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from toy_engine import as_trees, gathered, reported, sampled, without_ends

from architectures import TRUNK_AND_BRANCH, alone, model_of, policy_of, tokens
from groupwise.config.sections import LoraSection
from groupwise.engines import native
from groupwise.engines.choice import choose_decoder
from groupwise.engines.embedded import EmbeddedEngine
from groupwise.engines.fused import FusedDecoder, UnfitError
from groupwise.engines.native import SOURCE, NativeDecoder
from groupwise.engines.pages import PANEL, Pages
from groupwise.models import compiled
from groupwise.types import Sampling

pytestmark = pytest.mark.skipif(compiled.library(SOURCE) is None, reason="no C compiler here")

FIT = ["qwen2", "qwen3", "llama", "llama, dynamic rope", "mistral", "mistral, long window", "smollm3"]
CALLS = [
    (tokens(length, i), n, Sampling(max_new_tokens=limit, temperature=0.8), range(n))
    for i, (length, n, limit) in enumerate([(5, 3, 12), (1, 1, 70), (40, 11, 40), (64, 2, 33)])
]


def close(policy, plain, tolerance=1e-5, calls=CALLS):
    """What is sampled, against transformers' own forward of each sequence alone."""
    groups = sampled(policy, calls)
    found_T = torch.tensor([x for group in groups for c in group for x in c.logprobs], dtype=torch.float64)
    with torch.no_grad():
        expected_T = alone(plain, as_trees(calls, groups), temperature=0.8)
    assert float((found_T - expected_T).abs().max()) < tolerance


@pytest.mark.parametrize("name", TRUNK_AND_BRANCH)
def test_who_fits_and_that_its_numbers_are_the_models(name):
    policy = without_ends(policy_of(name))
    assert (choose_decoder(policy) is NativeDecoder) is (name in FIT)
    if name in FIT:
        close(policy, model_of(name))


BUILDS = {
    "every bias there is": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "no bias, tied": ("llama", {"tie_word_embeddings": True}),
    "a key head for each query head": ("llama", {"num_key_value_heads": 4}),
    "one key head, odd sizes": ("qwen2", {"num_key_value_heads": 1, "intermediate_size": 71}),
    "sizes of several panels": ("llama", {"hidden_size": 72, "intermediate_size": 161, "head_dim": 34}),
    "three panels a head": ("qwen3", {"head_dim": 70, "num_attention_heads": 9, "num_key_value_heads": 3}),
    "whole panels": ("llama", {"hidden_size": 128, "intermediate_size": 96, "head_dim": 64}),
    "large eps": ("llama", {"rms_norm_eps": 0.3}),
    "window": ("mistral", {"sliding_window": 3}),
    "window beyond the prompt": ("mistral", {"sliding_window": 45}),
    "window in some layers": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "tie_word_embeddings": False},
    ),
}


@pytest.mark.parametrize(("name", "changes"), BUILDS.values(), ids=BUILDS)
@pytest.mark.parametrize("threads", [1, 3])
def test_builds_and_sizes(name, changes, threads):
    policy = without_ends(policy_of(model_of(name, **changes)))
    assert choose_decoder(policy) is NativeDecoder
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        close(policy, model_of(name, **changes), 2e-5)
    finally:
        torch.set_num_threads(before)


def test_late_joiners_over_many_pages():
    """Rows come and go; pages are handed on, and nothing that a former owner wrote is seen."""
    policy = without_ends(policy_of(model_of("mistral", sliding_window=50)))
    limits = (150, 20, 90, 7, 60, 130)
    calls = [
        (tokens(3 + 15 * i, i), 2, Sampling(max_new_tokens=n, temperature=0.8), range(2)) for i, n in enumerate(limits)
    ]

    async def staggered():
        engine, tasks = EmbeddedEngine(policy, max_rows=6), []
        for call in calls:
            tasks.append(asyncio.create_task(engine.sample(*call)))
            for _ in range(17):
                await asyncio.sleep(0)
        groups = await asyncio.gather(*tasks)
        assert isinstance(engine._decoder, NativeDecoder)
        assert not engine._decoder._pages._pools, "when nobody is left no memory is held"
        return groups

    groups = asyncio.run(staggered())
    found_T = torch.tensor([x for group in groups for c in group for x in c.logprobs], dtype=torch.float64)
    with torch.no_grad():
        expected_T = alone(model_of("mistral", sliding_window=50), as_trees(calls, groups), temperature=0.8)
    assert float((found_T - expected_T).abs().max()) < 1e-5


def test_pages_are_used_again():
    pages = Pages(layers=2, kv_heads=1, dim=4)
    prompt = [(torch.randn(1, 1, 33, 4), torch.randn(1, 1, 33, 4))]
    pages.admit([prompt, prompt], rows=[9])
    for _ in range(PANEL + 1):
        pages.begin()
        pages.end()
    assert pages.trunk_pages.shape == (1, 2)
    assert pages.branch_pages.shape == (9, 2)
    held = set(pages.branch_pages.flatten().tolist())
    assert len(held) == 18
    pages.keep([0, 4])
    pages.admit([prompt, prompt], rows=[7])
    assert pages.first_row.tolist() == [0, 2, 9]
    pages.begin()
    new = set(pages.branch_pages[2:, 0].tolist())
    assert new <= held - set(pages.branch_pages[:2].flatten().tolist())


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
        engine, before = EmbeddedEngine(policy), None
        for seed in range(3):
            stir(policy, seed)
            groups = await gathered(engine, CALLS)
            assert isinstance(engine._decoder, NativeDecoder)
            assert float((reported(groups) - learners(policy, groups)).abs().max()) < 2e-5
            if before is not None:
                assert float((learners(policy, before) - reported(before)).abs().max()) > 1e-2, "they have moved far"
            before = groups

    asyncio.run(work())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: p.model.double(), "for fp32"),
        (lambda p: p.adapted.add_adapter("d", LoraConfig(r=2, target_modules=["q_proj"], use_dora=True)), "DoRA"),
        (lambda p: p.adapted.add_adapter("e", LoraConfig(r=2, target_modules=["embed_tokens"])), "not a plain table"),
    ],
)
def test_what_it_leaves_to_others(change, says):
    policy = policy_of("llama", lora=LoraSection(r=4))
    change(policy)
    policy.adapted.base_model.set_adapter(list(policy.adapted.peft_config))
    with pytest.raises(UnfitError, match=says):
        NativeDecoder(policy)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_weights_of_16_bits_are_computed_with_in_fp32(dtype):
    """So its numbers are those of the same weights in fp32 but for the prompt's, which the model itself reads; and an
    adapter, small beside a weight, is not rounded away in their sum."""
    policy = policy_of("llama", lora=LoraSection(r=4))
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=1e-3, generator=torch.Generator().manual_seed(1))
    policy.model.to(dtype)
    exact = policy_of("llama", lora=LoraSection(r=4))
    exact.model.load_state_dict({name: value.float() for name, value in policy.model.state_dict().items()})
    prompt = [tokens(9)]
    with torch.inference_mode():
        one, other = NativeDecoder(policy), NativeDecoder(exact)
        assert one.admit(prompt, [2]).dtype == dtype
        other.admit(prompt, [2])
        drawn = torch.tensor([3, 4])
        found, expected = one.step(drawn), other.step(drawn)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
    for mine, theirs in zip(one._held, other._held, strict=True):
        torch.testing.assert_close(mine, theirs, atol=3e-5, rtol=0)  # in 16 bits a sum would be off by up to 1e-3


def test_without_a_compiler_torch_does_it(monkeypatch):
    compiled.library.cache_clear()
    monkeypatch.setenv("CC", "/nowhere/cc")
    monkeypatch.setenv("XDG_CACHE_HOME", "/nowhere")
    try:
        assert compiled.library(SOURCE) is None
        assert choose_decoder(policy_of("llama")) is FusedDecoder
    finally:
        compiled.library.cache_clear()


def test_it_can_be_switched_off(monkeypatch):
    compiled.library.cache_clear()
    monkeypatch.setenv("GROUPWISE_NATIVE", "0")
    try:
        assert compiled.library(SOURCE) is None
    finally:
        compiled.library.cache_clear()


def test_its_copy_is_there_while_it_samples_only(monkeypatch):
    policy = policy_of("llama")
    size = sum(x.numel() * x.element_size() for x in policy.model.parameters())
    monkeypatch.setattr(native, "LARGEST", size - 1)
    with pytest.raises(UnfitError, match="the copy would be large"):
        NativeDecoder(policy)
    monkeypatch.setattr(native, "LARGEST", size)
    decoder = NativeDecoder(policy)
    prompt, token_B = [tokens(5, 0)], torch.tensor([1])
    with torch.inference_mode():
        decoder.admit(prompt, [1])
        before = decoder.step(token_B).clone()
        decoder.keep([])
        decoder.rest()
        assert not decoder._held
        decoder.refresh()
        decoder.admit(prompt, [1])
        assert torch.equal(decoder.step(token_B), before)


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16], ids=str)
def test_torchs_default_dtype_changes_nothing(default):
    policy, plain = without_ends(policy_of("llama")), model_of("llama")
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        assert choose_decoder(policy) is NativeDecoder
        close(policy, plain)
    finally:
        torch.set_default_dtype(before)


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    compiled.library.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(compiled.tempfile, "tempdir", None)
    yield tmp_path / "cache" / "groupwise"
    compiled.library.cache_clear()


def test_half_a_library_is_compiled_again(cache_folder):
    assert compiled.library(SOURCE) is not None
    (made,) = cache_folder.iterdir()
    whole = made.read_bytes()
    made.unlink()  # a new file: what is loaded must not change under a process
    made.write_bytes(whole[: len(whole) // 2])
    compiled.library.cache_clear()
    assert compiled.library(SOURCE) is not None
    (again,) = cache_folder.iterdir()
    assert len(again.read_bytes()) == len(whole)


def test_a_cache_that_is_a_file_or_open_to_all_is_not_used_and_nothing_is_left_behind(cache_folder):
    cache_folder.parent.mkdir()
    cache_folder.write_text("a file")
    assert compiled.library(SOURCE) is not None
    cache_folder.unlink()
    cache_folder.mkdir()
    cache_folder.chmod(0o777)
    compiled.library.cache_clear()
    assert compiled.library(SOURCE) is not None
    assert not list(cache_folder.iterdir())
    assert [path.name for path in cache_folder.parent.parent.iterdir()] == ["cache"]


def test_a_compiler_with_options(cache_folder, monkeypatch):
    name = next(name for name in ("cc", "gcc", "clang") if compiled.shutil.which(name))
    monkeypatch.setenv("CC", f"{name} -DNOTHING=1")
    assert compiled.library(SOURCE) is not None


def test_every_header_makes_another_library():
    """Or a library would be used on, compiled from an older text."""
    room = Path(compiled.__file__).parents[1]
    for source in (*room.rglob("*.c"), *room.rglob("*.h")):
        for name in re.findall(r'#include "(.+)"', source.read_text()):
            assert (source.parent / name).resolve() in compiled.HEADERS, f"{name} in {source.name}"


@pytest.mark.parametrize("part", ["mlp", "heads"])
def test_layers_of_different_size_are_left_to_others(part):
    """As of a model that was cut down: native.c would read past the end of the smaller one."""
    model = model_of("llama")
    attention, mlp = model.model.layers[1].self_attn, model.model.layers[1].mlp
    with torch.no_grad():
        if part == "mlp":
            for projection in (mlp.gate_proj, mlp.up_proj):
                projection.weight = torch.nn.Parameter(projection.weight[:5].clone())
            mlp.down_proj.weight = torch.nn.Parameter(mlp.down_proj.weight[:, :5].clone())
        else:
            for projection in (attention.k_proj, attention.v_proj):
                projection.weight = torch.nn.Parameter(projection.weight[:8].clone())
            attention.num_key_value_groups = 4
    policy = without_ends(policy_of(model))
    with pytest.raises(UnfitError, match="differ in size"):
        NativeDecoder(policy)
    close(policy, model)


@pytest.mark.parametrize("token", [-1, 99, 1 << 40])
def test_a_token_without_an_embedding_is_refused_and_nothing_is_read(token):
    decoder = NativeDecoder(policy_of("llama"))
    with torch.inference_mode():
        decoder.admit([tokens(3)], [2])
        with pytest.raises(IndexError, match="embeddings for 99 tokens only"):
            decoder.step(torch.tensor([5, token]))
