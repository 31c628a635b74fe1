"""Sabotage: whatever a model does differently, it falls back or is refused, and is never silently wrong."""

import types

import pytest
import torch
import transformers as t
from torch import nn

from architectures import LLAMA, alone, model_of, policy_of, ragged_trees, tokens
from groupwise.errors import ModelError
from groupwise.models.policy import Policy
from groupwise.models.selfcheck import TOLERANCE, differs, probe
from toys import char_tokenizer


def is_right(policy, untouched):
    with torch.no_grad():
        found, expected = policy.logprobs(ragged_trees())[0], alone(untouched, ragged_trees())
    return torch.allclose(found, expected, atol=1e-4)


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
    with pytest.raises(RuntimeError, match="a mask of its own|an attention mask of its own"):
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


def unnamed(model):
    """The window is still in the mask that transformers makes, but the attention function is no longer told."""
    for module in attentions(model):
        module.sliding_window = None
    return model


@pytest.mark.parametrize(
    ("name", "window", "layers"),
    [("mistral", 7, 3), ("mistral", 40, 3), ("mistral, long window", 128, 3), ("gemma3", 200, 2)],
)
def test_a_window_that_no_layer_names(name, window, layers):
    """A short window shows in the numbers, a long one does not: then the layers that name theirs are counted."""

    def deaf(forward, *args, sliding_window=None, **kwargs):
        return forward(*args, **kwargs)

    def make():
        model = model_of(name, sliding_window=window)
        for module in attentions(model):
            vars(module)["sliding_window"] = None
        config = model.config
        original = type(model).forward
        assert config.sliding_window == window and original is not None
        return model

    if name.startswith("mistral"):  # its attention reads the window from the configuration, so the call is changed
        model = model_of(name, sliding_window=window)
        module_path = t.models.mistral.modeling_mistral
        interface = module_path.ALL_ATTENTION_FUNCTIONS.get_interface

        def without_window(*args):
            function = interface(*args)
            return lambda *a, sliding_window=None, **kw: function(*a, **kw)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module_path.ALL_ATTENTION_FUNCTIONS, "get_interface", without_window, raising=False)
            policy = policy_of(model)
    else:
        policy = policy_of(make())
    assert policy.attention == "plain"
    if window > 64:
        assert policy.why_plain == f"0 of its {layers} sliding-window layers name their window"
    else:
        assert policy.why_plain.startswith("logprobs differ by")
