"""Reward models: any sequence-classification model, batched, against its own plain forward."""

import asyncio

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from groupwise.errors import RewardError
from groupwise.rewards import Answers, RewardModel, as_reward, grade, load_reward
from toys import char_tokenizer


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    tokenizer = char_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 8,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForSequenceClassification(config), tokenizer


TEXTS = ["a", "bcd", "efghij", "k", "lmnopqrstuv"]


def expected(module, tokenizer, prompt, text):
    ids = torch.tensor([tokenizer(prompt + text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        return module(input_ids=ids).logits[0, 0].item()


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_batches_give_what_the_model_gives_alone(model, batch):
    module, tokenizer = model
    reward = RewardModel(module, tokenizer, batch=batch)
    assert reward(["p="] * 5, TEXTS) == pytest.approx([expected(*model, "p=", text) for text in TEXTS], abs=1e-5)


def test_a_module_is_a_reward_function_like_any_other(model):
    module, tokenizer = model
    answers = Answers(["p="] * 5, TEXTS, [(1,)] * 5, ["stop"] * 5, {"answer": ["x"] * 5})
    rewards = [as_reward(RewardModel(module, tokenizer, name="taste"), 0.5)]
    rows = asyncio.run(grade(rewards, answers))
    assert rows[1].reward == pytest.approx(0.5 * expected(*model, "p=", "bcd"), abs=1e-5)
    assert list(rows[0].parts) == ["taste"]


def test_by_folder_in_a_recipe(model, tmp_path):
    module, tokenizer = model
    module.save_pretrained(tmp_path / "rm")
    tokenizer.save_pretrained(tmp_path / "rm")
    reward = load_reward("reward_model", settings={"model": str(tmp_path / "rm"), "device": "cpu", "batch": 2})
    answers = Answers(["p="] * 5, TEXTS, [(1,)] * 5, ["stop"] * 5)
    rows = asyncio.run(grade([reward], answers))
    assert [row.reward for row in rows] == pytest.approx([expected(*model, "p=", t) for t in TEXTS], abs=1e-5)


def test_mistakes(tmp_path):
    for settings, told in (({}, "needs settings"), ({"model": str(tmp_path / "none")}, "cannot be loaded")):
        reward = load_reward("reward_model", settings=settings)
        with pytest.raises(RewardError, match=told):
            reward.function(["p"], ["c"], **reward.settings)
