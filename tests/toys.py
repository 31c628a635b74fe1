"""Toy objects that the tests of several rooms share: small enough to be understood at a glance, real enough to fail."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from groupwise.types import Completion, Group, Problem, Rollout

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


def tiny_model(
    kind: str = "qwen2",
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    context: int = 64,
    loudness: float = 1.0,
):
    """An untrained model over the characters of `char_tokenizer`: two layers, 16 wide, some thousand parameters.

    "gpt2" computes all of itself in the dtype that it is given; "qwen2" normalises in fp32 even in fp64. `loudness`
    scales the embeddings, which are the head too: at 1 all tokens are about as likely, whatever the layers say.
    """
    width, vocabulary = 16, len(LETTERS) + 4
    ends = {"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "gpt2":
            model = GPT2LMHeadModel(
                GPT2Config(vocab_size=vocabulary, n_embd=width, n_layer=2, n_head=2, n_positions=context, **ends)
            )
        else:
            model = Qwen2ForCausalLM(
                Qwen2Config(
                    vocab_size=vocabulary,
                    hidden_size=width,
                    intermediate_size=2 * width,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    num_key_value_heads=1,
                    max_position_embeddings=context,
                    tie_word_embeddings=True,
                    **ends,
                )
            )
    model.get_output_embeddings().weight.data.mul_(loudness)
    return model.to(dtype)


def graded_group(
    prompt_ids: Sequence[int],
    *branches: tuple[Sequence[int], float | None],
    identity: str = "p",
    advantage: float = 0.0,
) -> Group:
    """A group of (token ids, reward) pairs. Logprobs are nonsense; advantages are all the same.

    Example: `graded_group(ids_of("2+2="), (ids_of("4"), 1.0), (ids_of("5"), 0.0))`
    """
    rollouts = [
        Rollout(Completion(tuple(ids), (-9.0,) * len(ids), "length", ""), {"judge": reward}, reward, advantage)
        for ids, reward in branches
    ]
    return Group(Problem(identity, "", {}), tuple(prompt_ids), tuple(rollouts))
