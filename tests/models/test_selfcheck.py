"""Sabotage: whatever a model does differently, it falls back or is refused, and is never silently wrong."""

import types

import pytest
import torch
import transformers as t
from torch import nn

from architectures import LLAMA, alone, model_of, policy_of, ragged_trees
from groupwise.errors import ModelError
from groupwise.models.policy import Policy
from groupwise.models.selfcheck import TOLERANCE, differs, probe
from toys import char_tokenizer


def is_right(policy, untouched):
    with torch.no_grad():
        found, expected = policy.logprobs(ragged_trees())[0], alone(untouched, ragged_trees())
    return torch.allclose(found, expected, atol=1e-4, rtol=0)


def attentions(model):
    return [module for module in model.modules() if type(module).__name__.endswith("Attention")]


def wrap_attention(model, change):
    """Put `change(forward, *args, **kwargs)` in place of each attention's forward."""
    for module in attentions(model):

        def wrapped(self, *args, _forward=module.forward, **kwargs):
            return change(_forward, *args, **kwargs)

        module.forward = types.MethodType(wrapped, module)
    return model


# --- attention ------------------------------------------------------------------------------------------------------


def test_an_attention_that_drops_its_keywords():
    def deaf(forward, *args, layout=None, **kwargs):
        return forward(*args, **kwargs)

    policy = policy_of(wrap_attention(model_of("llama"), deaf))
    assert policy.why_plain == "the model does not hand its keyword arguments on to its attention"
    assert is_right(policy, model_of("llama"))


def test_an_attention_with_a_bias_that_nobody_knows():
    def biased(forward, *args, **kwargs):
        return forward(*args, **kwargs, relative_bias=torch.ones(1))

    policy = policy_of(wrap_attention(model_of("llama"), biased))
    assert policy.why_plain == "its attention takes relative_bias, which trunk and branch does not know"
    assert is_right(policy, model_of("llama"))


@pytest.mark.parametrize("name", ["position_bias", "s_aux", "cu_seq_lens_q", "indices"])
def test_no_keyword_is_harmless_because_of_how_it_begins(name):
    def biased(forward, *args, **kwargs):
        return forward(*args, **kwargs, **{name: torch.ones(1)})

    assert name in policy_of(wrap_attention(model_of("llama"), biased)).why_plain


def test_an_attention_with_a_mask_of_its_own():
    """A mask longer than the probe, say: on the probe it hides nothing."""

    def masked(forward, hidden_states, *args, attention_mask=None, **kwargs):
        length = hidden_states.shape[1]
        return forward(hidden_states, *args, attention_mask=torch.ones(1, 1, length, length).tril() > 0, **kwargs)

    model = wrap_attention(model_of("llama"), masked)
    policy = Policy(model, char_tokenizer())
    policy.use("trunk_and_branch")
    with pytest.raises(RuntimeError, match="an attention mask of its own"):
        policy.logprobs(ragged_trees())


def test_an_attention_that_looks_at_neighbours_in_the_row():
    """A convolution over the row mixes branches with each other: only the numbers of the probe show it."""

    def blurred(forward, hidden_states, *args, **kwargs):
        output, weights = forward(hidden_states, *args, **kwargs)
        return output + 0.5 * nn.functional.pad(output, (0, 0, 1, 0))[:, :-1], weights

    policy = policy_of(wrap_attention(model_of("llama"), blurred))
    assert policy.why_plain.startswith("logprobs differ by")
    assert is_right(policy, wrap_attention(model_of("llama"), blurred))


def test_an_attention_that_raises():
    def raises(forward, *args, layout=None, **kwargs):
        if layout is not None:
            raise ZeroDivisionError("a strange model")
        return forward(*args, **kwargs)

    policy = policy_of(wrap_attention(model_of("llama"), raises))
    assert policy.why_plain == "ZeroDivisionError on the probe: a strange model"
    assert is_right(policy, model_of("llama"))


# --- windows --------------------------------------------------------------------------------------------------------


def unnamed(name, window, layers=3):
    """The window is in the mask that transformers makes, but some attention layers do not tell their function."""
    model = model_of(name, sliding_window=window)
    for module in attentions(model)[:layers]:
        module.sliding_window = None
    return model


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_a_short_window_that_is_not_named_shows_in_the_numbers(name):
    policy = policy_of(unnamed(name, 6))
    assert policy.attention == "plain" and policy.why_plain.startswith("logprobs differ by")
    assert is_right(policy, model_of(name, sliding_window=6))


@pytest.mark.parametrize(("layers", "naming"), [(3, 0), (1, 1)])
def test_a_window_longer_than_the_probe_must_be_named_by_every_layer(layers, naming):
    policy = policy_of(unnamed("gemma3", 200, layers))
    assert policy.why_plain == f"{naming} of its 2 sliding-window layers name their window"
    assert is_right(policy, model_of("gemma3", sliding_window=200))
    assert policy_of(model_of("gemma3", sliding_window=200)).attention == "trunk_and_branch"


def test_layers_of_an_unknown_kind():
    """Chunks of Llama 4's kind are longer than any probe: by the numbers nothing is wrong with them."""
    model = t.Llama4ForCausalLM(
        t.Llama4TextConfig(
            **{**LLAMA, "head_dim": 8},
            num_local_experts=2,
            intermediate_size_mlp=48,
            attention_chunk_size=4096,
            layer_types=["chunked_attention", "full_attention", "chunked_attention"],
        )
    ).eval()
    assert policy_of(model).why_plain == "it has layers of chunked_attention"


# --- heads ----------------------------------------------------------------------------------------------------------


def test_a_head_with_a_multiplier_that_nobody_knows():
    """Then the model's own logits are used."""

    def make():
        model = model_of("llama")
        forward = model.forward
        scale = 1.7

        def louder(*args, **kwargs):
            output = forward(*args, **kwargs)
            output.logits = output.logits * scale
            return output

        model.forward = louder
        return model

    policy = policy_of(make())
    assert policy.attention == "trunk_and_branch"
    assert is_right(policy, make())
    assert not is_right(policy_of("llama"), make())


@pytest.mark.parametrize(
    ("settings", "scale", "cap"),
    [
        ({}, 1.0, None),
        ({"logit_scale": 0.3}, 0.3, None),
        ({"logits_scaling": 4.0}, 0.25, None),
        ({"final_logit_softcapping": 30}, 1.0, 30.0),
        ({"logit_scale": "inv_sqrt_d_model", "logits_scaling": None}, 1.0, None),
    ],
)
def test_the_head_reads_the_configuration(settings, scale, cap):
    model = model_of("llama")
    for name, value in settings.items():
        setattr(model.config, name, value)
    head = Policy(model, char_tokenizer()).head
    assert (head.scale, head.cap) == (scale, cap)
    logits = model.lm_head(torch.ones(32)) * scale
    assert torch.allclose(head(torch.ones(32)), logits if cap is None else cap * torch.tanh(logits / cap))


def test_a_head_behind_another_layer():
    """Models with a projection between features and head: the head cannot even be applied, so their own logits."""
    model = model_of("opt", word_embed_proj_dim=16)
    policy = policy_of(model)
    assert is_right(policy, model_of("opt", word_embed_proj_dim=16))


# --- what cannot be trained -----------------------------------------------------------------------------------------


def test_a_model_that_sees_what_comes_after():
    """A BERT with a language-model head: a token's logprob depends on the tokens behind it."""
    settings = {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}
    model = t.BertLMHeadModel(t.BertConfig(**settings)).eval()
    with pytest.raises(ModelError, match="a padded batch gives other logprobs than each sequence alone"):
        policy_of(model)


def test_a_model_that_computes_nonsense():
    model = model_of("llama")
    model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match=r"LlamaForCausalLM in torch.float32 gives logprobs that are not finite"):
        policy_of(model)


def test_a_model_that_is_another_one_in_training_mode():
    """With checkpointing, layers run in training mode. Nothing may come of that."""

    def moody(self, *args, _forward, **kwargs):
        return _forward(*args, **kwargs) * (1.1 if self.training else 1.0)

    model = model_of("llama")
    layer = model.model.layers[0]
    original = type(layer).forward
    layer.forward = types.MethodType(lambda self, *a, **k: moody(self, *a, _forward=original.__get__(self), **k), layer)
    assert policy_of(model).attention == "trunk_and_branch"
    with pytest.raises(ModelError, match="gives other logprobs in training mode"):
        policy_of(model, gradient_checkpointing=True)


# --- what was asked for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mamba", "gpt-oss", "falcon, alibi", "nemotron"])
def test_trunk_and_branch_or_nothing(name):
    with pytest.raises(ModelError, match=r'attention = trunk_and_branch, but \w+ does not fit it: .*"auto"'):
        policy_of(name, attention="trunk_and_branch")


def test_plain_on_request():
    policy = policy_of("llama", attention="plain")
    assert (policy.attention, policy.why_plain) == ("plain", "model.attention = plain")


def test_a_fallback_is_said_in_one_line(caplog):
    policy_of("mamba")
    (record,) = caplog.records
    assert record.getMessage().startswith("MambaForCausalLM runs as plain padded batches: it carries a state")
    caplog.clear()
    policy_of("llama")
    policy_of("mamba", attention="plain")
    assert not caplog.records


def test_the_check_leaves_nothing_behind():
    model = model_of("llama")
    torch.manual_seed(8)
    before = torch.get_rng_state()
    policy_of(model)
    assert torch.equal(torch.get_rng_state(), before), "the check draws from a generator of its own"
    assert all(parameter.grad is None for parameter in model.parameters())


# --- the probe ------------------------------------------------------------------------------------------------------


def test_the_probe_reaches_behind_a_short_window_and_stays_in_a_short_context():
    reach = max(len(tree.trunk) + len(branch) for tree in probe(policy_of("mistral")) for branch in tree.branches)
    assert reach > 2 * 7
    small = policy_of(model_of("gpt2", n_positions=12))
    assert small.attention == "trunk_and_branch"
    assert all(len(tree.trunk) + len(branch) <= 12 for tree in probe(small) for branch in tree.branches)


@pytest.mark.parametrize(
    ("dtype", "gaps", "equal"),
    [
        (torch.float32, (0.0, 4e-5), True),
        (torch.float32, (0.0, 6e-5), False),
        (torch.float64, (0.0, 2e-8), False),
        (torch.float32, (0.0, float("nan")), False),
        (torch.bfloat16, (0.0, 0.4), True),  # a mean of 0.2: one token may stray, as behind a router that tips over
        (torch.bfloat16, (0.3, 0.4), False),
        (torch.bfloat16, (0.0, float("nan")), False),
    ],
)
def test_what_counts_as_equal(dtype, gaps, equal):
    assert (differs(torch.tensor(gaps), torch.zeros(2), dtype) == "") is equal
    assert TOLERANCE[dtype] > 0


@pytest.mark.parametrize("context", [2, 3, 4])
def test_the_shortest_contexts_there_are(context):
    policy = policy_of(model_of("llama", max_position_embeddings=context))
    assert policy.attention == "trunk_and_branch"
    assert all(len(tree.trunk) + max(map(len, tree.branches)) <= context for tree in probe(policy))


def test_a_context_without_room_for_a_completion():
    with pytest.raises(ModelError, match=r"holds 1 tokens at once \(max_position_embeddings"):
        policy_of(model_of("llama", max_position_embeddings=1))
