"""Toy objects that the tests of several rooms share: small enough to be understood at a glance, real enough to fail."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

LETTERS = [chr(code) for code in range(32, 127)] + ["\n"]

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
"""Writes BOS itself, as the templates of Llama and Gemma do, and ends every message with EOS."""


def char_tokenizer(
    chat_template: str | None = None, *, bos: bool = False, eos_behind: bool = False
) -> PreTrainedTokenizerFast:
    """One token per printable ASCII character: `<pad>` 0, `<eos>` 1, `<bos>` 2, `<unk>` 3, space 4, `!` 5, ...

    `bos` and `eos_behind` make it put these tokens around a text, as some models' tokenizers do.
    """
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", *LETTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    if bos or eos_behind:
        around = f"{'<bos> ' if bos else ''}$A{' <eos>' if eos_behind else ''}"
        tokenizer.post_processor = processors.TemplateProcessing(
            single=around, special_tokens=[("<bos>", vocabulary["<bos>"]), ("<eos>", vocabulary["<eos>"])]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    )
    made.chat_template = chat_template
    return made


def ids_of(text: str) -> tuple[int, ...]:
    """The ids that `char_tokenizer` has for the characters, without special tokens around them."""
    return tuple(4 + LETTERS.index(character) for character in text)
