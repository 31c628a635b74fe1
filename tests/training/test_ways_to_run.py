"""Every way to run that a recipe may choose takes two steps from end to end, and moves the policy."""

import math

import pytest
import torch
from toy_runs import ROWS, loaded, plain_logprobs, trainer_of
from transformers import MambaConfig, MambaForCausalLM

from groupwise.errors import ModelError
from toys import char_tokenizer, tiny_model

WAYS = {
    "bf16": {"model.dtype": "bf16"},
    "fp16": {"model.dtype": "fp16"},
    "checkpointing": {"model.gradient_checkpointing": True},
    "plain": {"model.attention": "plain"},
    "trunk and branch": {"model.attention": "trunk_and_branch"},
    "lora": {"lora": {"r": 4}},
    "lora with a reference": {"lora": {"r": 4}, "algorithm.beta": 0.1},
    "lora, bf16, dropout, checkpointing": {
        "lora": {"r": 4, "dropout": 0.2},
        "model.dtype": "bf16",
        "model.gradient_checkpointing": True,
    },
    "lora, fp16": {"lora": {"r": 4}, "model.dtype": "fp16"},
    "lora, some modules": {"lora": {"r": 2, "targets": ["q_proj", "down_proj"]}},
    "a reference": {"algorithm.beta": 0.1},
    "a moving reference": {"algorithm.beta": 0.1, "reference.every": 1},
    "lora, a moving reference": {"lora": {"r": 4}, "algorithm.beta": 0.1, "reference": {"every": 1, "mix": 0.5}},
    "two passes": {"learner.passes": 2},
    "two updates": {"learner.updates_per_batch": 2},
    "two of both in bf16": {"learner": {"passes": 2, "updates_per_batch": 2}, "model.dtype": "bf16"},
    "tiny micro-batches": {"learner": {"token_budget": 1, "logprob_chunk": 1}},
    "few rows": {"engine.max_rows": 3},
    "dr_grpo": {"algorithm.preset": "dr_grpo"},
    "dapo": {"algorithm.preset": "dapo", "learner.passes": 2},
    "prompt_mean": {"algorithm": {"weights": "prompt_mean", "divergence": "k2", "beta": 0.1}},
    "hot": {"sampling.temperature": 1.7, "learner.passes": 2},
    "cut off": {"sampling": {"top_p": 0.9, "top_k": 20, "min_p": 0.01, "repetition_penalty": 1.1, "stop": ["ab", "z"]}},
    "cosine": {"optimizer": {"schedule": "cosine", "warmup": 0.5, "weight_decay": 0.1, "max_grad_norm": math.inf}},
}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    tiny_model().save_pretrained(folder)
    char_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_two_steps(tmp_path, start, way):
    trainer = trainer_of(tmp_path, model=str(start), **{**WAYS[way], "sampling.max_new_tokens": 8})
    run = trainer.train()
    first, last = run.metrics.read()
    assert run.status == "finished"
    for row in (first, last):
        assert all(math.isfinite(row[name]) for name in ("reward", "loss", "grad_norm", "ratio", "entropy"))
    assert first["grad_norm"] > 0
    assert first["trained_tokens"] > 0
    halves = "bf16" in str(trainer.policy.dtype) or "16" in str(trainer.policy.dtype)
    dropout = trainer.parts.recipe.lora is not None and trainer.parts.recipe.lora.dropout > 0
    assert first["sampler_gap"] < (0.3 if halves or dropout else 1e-5)
    if "algorithm.beta" in WAYS[way]:
        assert abs(first["kl"]) < 1e-9
    expected = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(trainer.parts.recipe.model.dtype, torch.float32)
    assert trainer.policy.dtype is expected
    trainer.save(tmp_path / "merged")
    ids = (5, 6, 7, 40, 41, 42)
    before, after = (
        plain_logprobs(loaded(start), ids),
        plain_logprobs(loaded(tmp_path / "merged", dtype="float32"), ids),
    )
    assert not torch.allclose(before, after, atol=1e-3)


def test_what_cannot_run_falls_back_or_refuses(tmp_path):
    def mamba():
        return MambaForCausalLM(MambaConfig(vocab_size=100, hidden_size=16, num_hidden_layers=1, state_size=4))

    run = trainer_of(tmp_path, rows=ROWS, model=mamba()).train()
    assert run.identity["attention"] == "plain"
    assert run.identity["why_plain"]
    with pytest.raises(ModelError, match="trunk_and_branch"):
        trainer_of(
            tmp_path, rows=ROWS, model=mamba(), **{"model.attention": "trunk_and_branch", "run.name": "b"}
        ).train()
