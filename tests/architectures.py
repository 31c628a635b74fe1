"""Tiny random models of many architectures, and how each is expected to be run.

All parameters are stirred, norms and biases too: at their initial 1 and 0 a forgotten one would not show. Windows are
shorter than the sequences of the tests, unless the name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers as t

from groupwise.config.sections import LoraSection, ModelSection
from groupwise.models.load import prepare_policy
from groupwise.models.trees import Tree
from toys import char_tokenizer

VOCABULARY = 99
ENDS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    **ENDS,
}
GPT = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256, **ENDS}
FALCON = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, **ENDS}
GEMMA = {**LLAMA, "head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8}
MIXED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
MAMBA = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, **ENDS}

BUILT_IN = "its attention cannot be replaced"
STATE = "it carries a state from token to token, beside or instead of attention"
SINKS = "its attention takes s_aux, which trunk and branch does not know"
DEAF = "the model does not hand its keyword arguments on to its attention"
TWICE = "it has layers that attend more than once to a token"


@dataclass(frozen=True)
class Architecture:
    """A class of transformers, its settings, and why it runs plain (empty: by trunk and branch)."""

    model: type[t.PreTrainedModel]
    config: type[t.PreTrainedConfig]
    settings: Mapping[str, Any] = field(default_factory=lambda: LLAMA)
    why_plain: str = ""


ARCHITECTURES = {
    "qwen2": Architecture(t.Qwen2ForCausalLM, t.Qwen2Config, {**LLAMA, "tie_word_embeddings": True}),
    "qwen3": Architecture(t.Qwen3ForCausalLM, t.Qwen3Config, {**LLAMA, "head_dim": 8}),
    "llama": Architecture(t.LlamaForCausalLM, t.LlamaConfig),
    "llama, dynamic rope": Architecture(
        t.LlamaForCausalLM,
        t.LlamaConfig,
        {**LLAMA, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}},
    ),
    "mistral": Architecture(t.MistralForCausalLM, t.MistralConfig, {**LLAMA, "sliding_window": 7}),
    "mistral, long window": Architecture(t.MistralForCausalLM, t.MistralConfig, {**LLAMA, "sliding_window": 128}),
    "gemma2": Architecture(
        t.Gemma2ForCausalLM,
        t.Gemma2Config,
        {**GEMMA, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0},
    ),
    "gemma3": Architecture(t.Gemma3ForCausalLM, t.Gemma3TextConfig, {**GEMMA, **MIXED}),
    "phi3": Architecture(t.Phi3ForCausalLM, t.Phi3Config, {**LLAMA, "sliding_window": 6}),
    "gpt2": Architecture(t.GPT2LMHeadModel, t.GPT2Config, GPT),
    "gpt-neox": Architecture(
        t.GPTNeoXForCausalLM, t.GPTNeoXConfig, {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}
    ),
    "opt": Architecture(
        t.OPTForCausalLM,
        t.OPTConfig,
        {**FALCON, "ffn_dim": 48, "max_position_embeddings": 256, "word_embed_proj_dim": 32},
    ),
    "falcon, alibi": Architecture(t.FalconForCausalLM, t.FalconConfig, {**FALCON, "alibi": True}, BUILT_IN),
    "falcon, rotary": Architecture(
        t.FalconForCausalLM,
        t.FalconConfig,
        {**FALCON, "alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2},
        BUILT_IN,
    ),
    "granite": Architecture(
        t.GraniteForCausalLM,
        t.GraniteConfig,
        {
            **LLAMA,
            "logits_scaling": 4.0,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.3,
        },
    ),
    "cohere": Architecture(t.CohereForCausalLM, t.CohereConfig, {**LLAMA, "logit_scale": 0.3}),
    "olmo2": Architecture(t.Olmo2ForCausalLM, t.Olmo2Config),
    "smollm3": Architecture(t.SmolLM3ForCausalLM, t.SmolLM3Config),
    "qwen3-moe": Architecture(
        t.Qwen3MoeForCausalLM,
        t.Qwen3MoeConfig,
        {**LLAMA, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
    "deepseek-v3": Architecture(
        t.DeepseekV3ForCausalLM,
        t.DeepseekV3Config,
        {
            **LLAMA,
            "num_key_value_heads": 4,
            "num_hidden_layers": 2,
            "moe_intermediate_size": 16,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "kv_lora_rank": 8,
            "q_lora_rank": 8,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 12,
        },
    ),
    "mamba": Architecture(t.MambaForCausalLM, t.MambaConfig, MAMBA, STATE),
    "falcon-h1": Architecture(
        t.FalconH1ForCausalLM,
        t.FalconH1Config,
        {
            **LLAMA,
            "num_hidden_layers": 2,
            "mamba_d_ssm": 32,
            "mamba_n_heads": 4,
            "mamba_d_head": 8,
            "mamba_d_state": 8,
            "lm_head_multiplier": 0.7,
        },
        STATE,
    ),
    "gpt-oss": Architecture(
        t.GptOssForCausalLM,
        t.GptOssConfig,
        {**LLAMA, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 6},
        SINKS,
    ),
    "bloom": Architecture(
        t.BloomForCausalLM, t.BloomConfig, {"hidden_size": 32, "n_layer": 2, "n_head": 4, **ENDS}, BUILT_IN
    ),
    "nemotron": Architecture(t.NemotronForCausalLM, t.NemotronConfig, LLAMA, DEAF),
    "diffllama": Architecture(t.DiffLlamaForCausalLM, t.DiffLlamaConfig, LLAMA, TWICE),
    "gpt-1, no cache": Architecture(t.OpenAIGPTLMHeadModel, t.OpenAIGPTConfig, GPT, BUILT_IN),
}

TRUNK_AND_BRANCH = [name for name, architecture in ARCHITECTURES.items() if not architecture.why_plain]


def model_of(name: str, *, stir: float = 0.06, seed: int = 0, **changes: Any) -> t.PreTrainedModel:
    """A fresh model of that architecture in fp32: the same one for the same seed."""
    architecture = ARCHITECTURES[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = architecture.model(architecture.config(**{**architecture.settings, **changes}))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += stir * torch.randn_like(parameter)
    return model.eval()


def policy_of(model: str | t.PreTrainedModel, *, lora: LoraSection | None = None, tokenizer=None, **settings: Any):
    """A policy of a model, or of an architecture's name."""
    made = model_of(model) if isinstance(model, str) else model
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return prepare_policy(made, tokenizer or char_tokenizer(), ModelSection(id="toy", **settings), lora)


def tokens(count: int, seed: int = 0) -> tuple[int, ...]:
    """Random token ids, special ones among them."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return tuple(torch.randint(0, VOCABULARY, (count,), generator=generator).tolist())


def ragged_trees() -> list[Tree]:
    """Branches of many lengths, of one token and of none, a tree without branches, a prompt of one token."""
    return [
        Tree(tokens(9), (tokens(5, 1), tokens(1, 2), (), tokens(17, 3))),
        Tree(tokens(4, 4), ()),
        Tree(tokens(1, 5), (tokens(3, 6), tokens(21, 7))),
        Tree(tokens(26, 8), (tokens(2, 9), tokens(12, 10))),
    ]


def alone(model: t.PreTrainedModel, trees: list[Tree], temperature: float = 1.0) -> torch.Tensor:
    """The logprobs of all completion tokens, each sequence by itself through transformers' own forward."""
    pieces = []
    for tree in trees:
        for branch in tree.branches:
            if branch:
                ids = torch.tensor([[*tree.trunk, *branch]])
                logits = model(input_ids=ids, use_cache=False).logits[0, len(tree.trunk) - 1 : -1] / temperature
                pieces.append(logits.log_softmax(-1).gather(-1, ids[0, len(tree.trunk) :, None])[:, 0])
    return torch.cat(pieces)


def gradients(model: t.PreTrainedModel, logprobs_T: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a sum in which every logprob has a weight of its own."""
    model.zero_grad(set_to_none=True)
    generator = torch.Generator().manual_seed(5)
    (
        logprobs_T * torch.randn(len(logprobs_T), generator=generator, dtype=torch.float64).to(logprobs_T)
    ).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def largest_difference(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """Between tensors of the same names."""
    assert set(one) == set(other), set(one) ^ set(other)
    return max(float((one[name] - other[name]).abs().max()) for name in one)
