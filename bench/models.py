"""Model folders for the bench: random weights in a known shape, a tokenizer of characters, nothing downloaded.

How long completions are matters more than what they say, and random weights over a large vocabulary never end one. The
end token is made likely enough with one direction u in the space of features and nothing else: every embedding gets the
same component along u, so the features of every token have about the same component along u too, and the end token's
row gets more of it. Its logit is then higher by about the same amount everywhere, and lengths fall geometrically, as
those of random weights over a small vocabulary do. How much more is found by bisection, on completions that the model
itself samples: the probability of an end differs much from token to token, so that its mean says little of lengths.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from groupwise.models.small import character_tokenizer
from workloads import CHARACTERS, Shape

FAMILIES = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}


def write_model(folder: Path, shape: Shape) -> None:
    """Write weights and tokenizer as transformers has them. The same shape is the same file."""
    tokenizer = tokenizer_of(shape.vocabulary)
    torch.manual_seed(0)
    model = random_model(shape, tokenizer)
    if shape.ends_after is not None:
        end_after(model, tokenizer, shape.ends_after)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(str(folder))


def random_model(shape: Shape, tokenizer: PreTrainedTokenizerFast):
    """The architecture with the weights that transformers begins with."""
    config_class, model_class = FAMILIES[shape.family]
    config = config_class(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return model_class(config)


def tokenizer_of(vocabulary: int) -> PreTrainedTokenizerFast:
    """Characters, and above them words that no text of ours contains, up to the size that was asked for."""
    tokenizer = character_tokenizer()
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    known = description["model"]["vocab"]
    known |= {f"w{number}": number for number in range(len(known), vocabulary)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(description)),
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        bos_token=None,
    )


@torch.no_grad()
def end_after(model, tokenizer, mean_length: float) -> None:
    """Make the end token as likely as completions of this mean length need it; `inf`: as good as impossible."""
    embeddings = model.get_input_embeddings().weight
    end = tokenizer.eos_token_id
    direction = torch.nn.functional.normalize(torch.randn(embeddings.shape[1]), dim=0)
    shared = embeddings.norm(dim=1).mean()
    embeddings += shared * direction
    row = embeddings[end].clone()
    if math.isinf(mean_length):
        embeddings[end] = row - 64 * shared * direction
        return
    features, others = sampled_features(model, end, tokenizer.convert_tokens_to_ids(list(CHARACTERS)))
    along, base = features @ direction, features @ row
    low, high = 0.0, 64.0
    for _ in range(30):
        middle = (low + high) / 2
        ends = torch.sigmoid(base + middle * shared * along - others)
        low, high = (low, middle) if expected_length(ends) < mean_length else (middle, high)
    embeddings[end] = row + high * shared * direction


SEQUENCES, PROMPT, TOKENS = 32, 200, 512


def sampled_features(model, end: int, known: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Of completions that do not end, after prompts of known tokens: [sequences, tokens, hidden], and the logsumexp of
    all logits but the end's."""
    ids = torch.tensor(known)[torch.randint(len(known), (SEQUENCES, PROMPT))]
    features, others, cache = [], [], None
    for _ in range(TOKENS):
        step = model.model(ids, past_key_values=cache, use_cache=True)
        cache, newest = step.past_key_values, step.last_hidden_state[:, -1]
        logits = model.lm_head(newest)
        logits[:, end] = -torch.inf
        features.append(newest)
        others.append(logits.logsumexp(-1))
        ids = torch.multinomial(logits.softmax(-1), 1)
    return torch.stack(features, 1), torch.stack(others, 1)


def expected_length(ends: torch.Tensor) -> float:
    """Of completions that end at each token with this probability, [sequences, tokens], and at the last for certain."""
    going = torch.cat([torch.ones(len(ends), 1), (1 - ends[:, :-1]).cumprod(1)], 1)
    return float(going.sum(1).mean())


def main():
    """`python bench/models.py SHAPE_AS_JSON FOLDER`"""
    fields, folder = sys.argv[1:]
    write_model(Path(folder), Shape(**json.loads(fields)))


if __name__ == "__main__":
    main()
