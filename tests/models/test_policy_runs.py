"""The policy's forward and backward: checkpointing, precision, training mode, and the model left as it was."""

import json

import pytest
import torch
import transformers as t

from architectures import (
    LLAMA,
    alone,
    gradients,
    largest_difference,
    model_of,
    policy_of,
    ragged_trees,
    tokens,
)
from groupwise.config.sections import LoraSection
from groupwise.errors import ModelError
from groupwise.models.attention import Terms, attend
from groupwise.models.save import save_policy
from groupwise.models.trees import Tree


def trained(policy, trees):
    """Logprobs and gradients, as an update computes them."""
    with policy.training():
        logprobs_T, _ = policy.logprobs(trees, chunk=16)
        return logprobs_T.detach(), gradients(policy.model, logprobs_T)


# --- checkpointing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen2", "gemma2", "gpt2", "opt", "qwen3-moe", "falcon-h1", "gpt-oss"])
def test_checkpointing_changes_no_gradient(name):
    trees = ragged_trees()
    stored, gradient = trained(policy_of(name), trees)
    checkpointed = policy_of(name, gradient_checkpointing=True)
    recomputed, gradient_again = trained(checkpointed, trees)
    assert torch.allclose(stored, recomputed, atol=1e-6, rtol=0)
    assert largest_difference(gradient, gradient_again) < 1e-6


@pytest.mark.parametrize("attention", ["trunk_and_branch", "plain"])
def test_checkpointing_recomputes_every_layer(attention):
    policy = policy_of("qwen2", gradient_checkpointing=True, attention=attention)
    calls = []
    for layer in policy.model.model.layers:
        layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        policy.logprobs(ragged_trees())
    assert len(calls) == 3, "outside training nothing is recomputed"
    calls.clear()
    trained(policy, ragged_trees())
    assert len(calls) == 2 * 3


def test_checkpointing_with_adapters_and_their_dropout():
    """The forward pass and the recomputation draw the same dropout, else autograd would say so or the gradient lie."""
    found = []
    for checkpointing in (False, True):
        policy = policy_of("llama", lora=LoraSection(r=4, dropout=0.5), gradient_checkpointing=checkpointing)
        with torch.no_grad():
            for parameter in policy.trainable().values():
                parameter += 0.2
        torch.manual_seed(11)
        found.append(trained(policy, ragged_trees()))
    (one, gradient), (two, gradient_again) = found
    assert torch.allclose(one, two, atol=1e-5, rtol=0)
    assert largest_difference(gradient, gradient_again) < 1e-5


# --- precision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2", "opt", "gpt-neox", "falcon, alibi"])  # all of them in fp64 throughout
def test_fp64_is_equal_to_ten_digits(name):
    trees = ragged_trees()
    untouched = model_of(name).double()
    expected_T = alone(untouched, trees)
    expected = gradients(untouched, expected_T)
    logprobs_T, found = trained(policy_of(model_of(name).double()), trees)
    assert logprobs_T.dtype == torch.float64
    assert torch.allclose(logprobs_T, expected_T.detach(), atol=1e-10, rtol=0)
    assert largest_difference(found, expected) < 1e-10


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["qwen2", "gemma3", "qwen3-moe"])
def test_16_bits_stay_near_fp32(name, dtype):
    trees = ragged_trees()
    exact = policy_of(name)
    rough = policy_of(model_of(name).to(dtype))
    assert rough.attention == "trunk_and_branch"
    with torch.no_grad():
        gaps_T = (exact.logprobs(trees)[0] - rough.logprobs(trees)[0]).abs()
    assert float(gaps_T.mean()) < 0.05
    assert rough.logprobs(trees)[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("dtype", "context", "lengths"),
    [(torch.bfloat16, 512, {256, 512}), (torch.float16, 100, {100, 300}), (torch.float32, 512, {38, 300})],
)
def test_rows_of_16_bits_have_few_lengths(dtype, context, lengths):
    """Torch compiles a matrix product of 16 bits for each number of tokens: 3 ms, some eighty times an update."""
    policy, seen = policy_of(model_of("qwen2", max_position_embeddings=context).to(dtype)), set()
    few, many = [Tree(tokens(9), (tokens(30),))], [Tree(tokens(60), tuple(tokens(41, i) for i in range(6)))]
    policy.model.get_input_embeddings().register_forward_hook(lambda _, given, out: seen.add(out.shape[1]))
    for trees in (few, many, few):
        policy.logprobs(trees)
    assert seen == lengths


@pytest.mark.parametrize(
    ("name", "dtype", "close"),
    [
        ("gpt2", torch.float64, 1e-12),
        ("falcon, alibi", torch.float64, 1e-12),
        ("gemma3", torch.float32, 1e-4),
        ("qwen3-moe", torch.float32, 1e-4),
    ],
)
def test_what_fills_a_row_up_changes_nothing(name, dtype, close, monkeypatch):
    trees = ragged_trees()
    expected_T, expected = trained(policy_of(model_of(name).to(dtype)), trees)
    policy = policy_of(model_of(name).to(dtype))
    monkeypatch.setattr(policy, "_fillers", lambda trees: [Tree((0,) * 37)])
    found_T, found = trained(policy, trees)
    assert torch.allclose(found_T, expected_T, atol=close, rtol=0)
    assert largest_difference(found, expected) < close


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_the_formula(softcap, masked):
    """softmax(cap(q k / s)) v in fp64, two query heads to a head of keys, values of another width than keys."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((2, 4, 5, 3), (2, 2, 5, 3), (2, 2, 5, 7))
    )
    visible = torch.ones(5, 5, dtype=torch.bool).tril()
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key.repeat_interleave(2, 1)) * 0.3
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    weights = scores.masked_fill(~visible, float("-inf")).softmax(-1)
    expected = torch.einsum("bhqk,bhkd->bhqd", weights, value.repeat_interleave(2, 1))
    found = attend(query, key, value, visible[None, None] if masked else None, Terms(0.3, None, softcap))
    assert torch.allclose(found, expected, atol=1e-12, rtol=0)


# --- no tokens, few tokens ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen2", "mamba"])
def test_nothing_to_predict_is_no_error(name):
    policy = policy_of(name)
    for trees in ([Tree(tokens(4))], [Tree(tokens(4), ((), ()))]):
        logprobs_T, entropies_T = policy.logprobs(trees, with_entropy=True)
        assert logprobs_T.shape == entropies_T.shape == (0,)
        logprobs_T.sum().backward()


def test_entropy_is_that_of_the_distribution():
    policy, trees = policy_of("qwen2"), ragged_trees()
    with torch.no_grad():
        _, entropies_T = policy.logprobs(trees, temperature=0.5, with_entropy=True)
        every_token = (policy.head(policy.features(trees)) / 0.5).log_softmax(-1)
    assert torch.allclose(entropies_T, -(every_token.exp() * every_token).sum(-1), atol=1e-5, rtol=0)


# --- training mode is the same function as sampling -----------------------------------------------------------------


NOISY = {
    "gpt2": {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5},
    "opt": {"dropout": 0.5, "attention_dropout": 0.5, "activation_dropout": 0.5, "layerdrop": 0.5},
    "gemma2": {"attention_dropout": 0.5},
    "bloom": {"hidden_dropout": 0.5, "attention_dropout": 0.5},
}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["stored", "checkpointed"])
@pytest.mark.parametrize("name", NOISY)
def test_dropout_is_silent_and_the_saved_configuration_keeps_it(name, checkpointing, tmp_path):
    trees = ragged_trees()
    policy = policy_of(model_of(name, **NOISY[name]), gradient_checkpointing=checkpointing)
    expected_T = alone(model_of(name), trees)
    for _ in range(2):
        assert torch.allclose(trained(policy, trees)[0], expected_T.detach(), atol=1e-5, rtol=0)
    save_policy(policy, tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert {key: saved[key] for key in NOISY[name] if key in saved} == {
        k: v for k, v in NOISY[name].items() if k in saved
    }
    assert "groupwise" not in json.dumps(saved)
    if name != "opt":  # whose configuration class drops activation_dropout
        assert set(NOISY[name]) <= set(saved)


def test_dropout_that_the_layers_read_from_the_configuration():
    """Falcon's do. Only checkpointing puts a layer in training mode, and then no number on it could be silenced."""
    noisy = {"hidden_dropout": 0.5, "attention_dropout": 0.5}
    trees = ragged_trees()
    policy = policy_of(model_of("falcon, rotary", **noisy))
    assert torch.allclose(
        trained(policy, trees)[0], alone(model_of("falcon, rotary"), trees).detach(), atol=1e-5, rtol=0
    )
    with pytest.raises(ModelError, match=r"FalconForCausalLM .* training mode .*gradient_checkpointing"):
        policy_of(model_of("falcon, rotary", **noisy), gradient_checkpointing=True)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["stored", "checkpointed"])
def test_routers_without_noise(checkpointing):
    """Mixtral shakes its router's input in training mode; what it was sampled with did not."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = t.MixtralConfig(**LLAMA, num_local_experts=4, num_experts_per_tok=2, router_jitter_noise=0.5)
        model = t.MixtralForCausalLM(config).eval()
    trees = ragged_trees()
    expected_T = alone(model, trees).detach()
    policy = policy_of(model, gradient_checkpointing=checkpointing)
    assert torch.allclose(trained(policy, trees)[0], expected_T, atol=1e-5, rtol=0)


def test_dropout_of_the_adapter_is_on_in_training_only():
    policy = policy_of("qwen2", lora=LoraSection(r=4, dropout=0.5))
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter += 0.3
        one, two = (policy.logprobs(ragged_trees())[0] for _ in range(2))
    assert torch.equal(one, two)
    three, four = (trained(policy, ragged_trees())[0] for _ in range(2))
    assert not torch.allclose(three, four, atol=1e-3, rtol=0)
    assert not any(module.training for module in policy.model.modules())


# --- the model stays transformers' own ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen2", "gemma3"])
def test_between_calls_the_model_is_an_ordinary_one(name):
    ids = torch.tensor([tokens(5)])

    def continued(model):
        return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False).tolist()

    expected = continued(model_of(name))
    policy = policy_of(name)
    assert policy.attention == "trunk_and_branch"
    assert continued(policy.model) == expected
    with pytest.raises(ZeroDivisionError), policy.training():
        policy.logprobs(ragged_trees())
        raise ZeroDivisionError
    assert continued(policy.model) == expected
    assert not policy.model.training
    assert policy.model.config._attn_implementation == model_of(name).config._attn_implementation


def test_a_model_may_be_prepared_twice():
    model = model_of("qwen2")
    first = policy_of(model)
    expected = first.logprobs(ragged_trees())[0]
    second = policy_of(model)
    assert second.attention == "trunk_and_branch"
    assert torch.equal(second.logprobs(ragged_trees())[0], expected)


# --- context --------------------------------------------------------------------------------------------------------


def longrope():
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 48,
    }
    settings = {**LLAMA, "rope_parameters": rope, "original_max_position_embeddings": 48}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return t.Phi3ForCausalLM(t.Phi3Config(**settings)).eval()


def test_the_context_ends_where_rotary_angles_begin_to_depend_on_the_batch():
    """Phi-3's long version turns all tokens by other angles once any sequence of the batch is past 48."""
    policy = policy_of(longrope())
    assert policy.context == 48
    short, long = Tree(tokens(5), (tokens(6, 1),)), Tree(tokens(20, 2), (tokens(28, 3),))
    with torch.no_grad():
        assert torch.allclose(policy.logprobs([short, long])[0][:6], policy.logprobs([short])[0], atol=1e-6, rtol=0)
        beyond = Tree(tokens(20, 2), (tokens(40, 3),))
        assert not torch.allclose(
            policy.logprobs([short, beyond])[0][:6], policy.logprobs([short])[0], atol=1e-5, rtol=0
        )


@pytest.mark.parametrize(
    ("name", "context"),
    [("gpt2", 256), ("opt", 256), ("llama", 256), ("llama, dynamic rope", 256), ("bloom", 1 << 30), ("mamba", 1 << 30)],
)
def test_the_context_is_the_models(name, context):
    assert policy_of(name).context == context


def test_static_rope_scaling_does_not_shorten_the_context():
    rope = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
    assert policy_of(model_of("llama", rope_parameters=rope)).context == 256
