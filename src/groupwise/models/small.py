"""A small untrained model and its tokenizer, made on the spot: for the demo, for first experiments, for tests.

Nothing is downloaded. The architecture is Qwen2's, so what works here works on the real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")
CHARACTERS = "".join(chr(code) for code in range(32, 127)) + "\n"


def write_small_model(
    folder: Path,
    *,
    hidden: int = 128,
    layers: int = 4,
    heads: int = 4,
    context: int = 256,
    seed: int = 0,
    tags: Sequence[str] = TAGS,
) -> None:
    """Write a model folder as transformers has them. 128 x 4 are 0.8 million parameters.

    Example: `write_small_model(Path("small"))`, then `load_policy(ModelSection(id="small"))`
    """
    tokenizer = character_tokenizer(tags)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(heads // 2, 1),
        max_position_embeddings=context,
        tie_word_embeddings=True,
        eos_token_id=cast(int, tokenizer.eos_token_id),
        pad_token_id=cast(int, tokenizer.pad_token_id),
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(str(folder))


def character_tokenizer(tags: Sequence[str] = TAGS) -> PreTrainedTokenizerFast:
    """One token per printable ASCII character and newline, and one for each tag.

    Example: `character_tokenizer().encode("<answer>12</answer>")` are four tokens.
    """
    # Bytes without merges, as the space and the newline are called there. `AutoTokenizer` makes a Qwen2Tokenizer of
    # whatever lies beside a Qwen2 model, which is just that: with another kind it would silently lose both.
    characters = CHARACTERS.replace(" ", "Ġ").replace("\n", "Ċ")
    names = ["<pad>", "<eos>", "<unk>", *tags, *characters]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in tags])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", bos_token=None
    )
