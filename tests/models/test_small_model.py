"""The small model's tokenizer: every character a token, before it is written and after it is loaded again."""

import pytest
from transformers import AutoTokenizer

from groupwise.models.small import CHARACTERS, TAGS, character_tokenizer, write_small_model


@pytest.mark.parametrize("loaded", [False, True])
def test_a_token_per_character_and_tag_made_or_loaded(tmp_path, loaded):
    tokenizer = character_tokenizer()
    if loaded:
        write_small_model(tmp_path / "small", hidden=16, layers=1, heads=2)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "small")
    # <pad>, <eos>, <unk>, four tags, then the characters in their order.
    assert tokenizer.encode(CHARACTERS) == list(range(7, 7 + len(CHARACTERS)))
    assert tokenizer.decode(tokenizer.encode(CHARACTERS)) == CHARACTERS
    assert tokenizer.encode("".join(TAGS)) == [3, 4, 5, 6]
    text = "<reasoning>2 + 2\n= 4</reasoning><answer>4</answer>"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id) == (1, 0, None)
