"""What the stand-in for the hub serves: tiny models under the ids of well-known ones, with data in their format."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import torch
from tokenizers import AddedToken, ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

QWEN = "Qwen/Qwen2.5-1.5B-Instruct"
SMOLLM = "HuggingFaceTB/SmolLM-135M-Instruct"

CHAT_FORMAT = """\
{%- if messages[0]['role'] != 'system' %}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
"""Qwen's: a header and an end around each message, and a system message of its own where there is none."""

TEXTS = [
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May.",
    "Respond in the following format:\n<reasoning>\n...\n</reasoning>\n<answer>\n...\n</answer>\n",
    "请按以下格式响应：",
    "# A long document about the Cat",
]
QUESTIONS = [(a, b) for a in range(2, 22) for b in range(3, 9)]


def tokenizer(end="<|im_end|>"):
    """Byte-level, as Qwen's: any text goes in and comes out again."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXTS, vocab_size=400, show_progress=False)
    trained.add_special_tokens(
        [AddedToken(name, special=True) for name in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    )
    made = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token=end, pad_token="<|endoftext|>")
    made.chat_template = CHAT_FORMAT
    return made


def write_model(folder: Path, kind: str) -> None:
    """A model of the architecture that the id stands for, two layers of 32."""
    words = tokenizer()
    shape = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
        "bos_token_id": None,
    }
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**shape)) if kind == "qwen2" else LlamaForCausalLM(LlamaConfig(**shape))
    # An untrained model ends after some 500 tokens; with forty ways to end it does so after ten.
    model.generation_config.eos_token_id = [words.eos_token_id, *range(100, 140)]
    model.to(torch.bfloat16).save_pretrained(folder)
    words.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_gsm8k(folder: Path) -> None:
    """The columns, the splits and the ends of answers of openai/gsm8k, as parquet in `main`."""
    rows = [
        {
            "question": f"Ann has {a} boxes of {b} pens. How many pens?",
            "answer": f"{a} boxes of {b} pens are <<{a}*{b}={a * b}>>{a * b} pens.\n#### {a * b}",
        }
        for a, b in QUESTIONS
    ]
    _write_splits(folder, "main", {"train": rows[:100], "test": rows[100:]})


def write_stories(folder: Path) -> None:
    """The columns and splits of mlabonne/smoltldr."""
    rows = [{"prompt": f"SUBREDDIT: r/pens\n\nPOST: I have {a} boxes of {b} pens.\n\nTL;DR:", "completion": " Pens."}
            for a, b in QUESTIONS]  # fmt: skip
    _write_splits(folder, "default", {"train": rows[:8], "validation": rows[8:12], "test": rows[12:16]})


def _write_splits(folder: Path, name: str, splits: dict[str, list[dict[str, str]]]) -> None:
    where = "data" if name == "default" else name
    (folder / where).mkdir(parents=True)
    files = []
    for split, rows in splits.items():
        path = f"{where}/{split}-00000-of-00001.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / path)
        files += [f"  - split: {split}", f"    path: {where}/{split}-*"]
    card = ["---", "configs:", f"- config_name: {name}", "  data_files:", *files, "---", ""]
    (folder / "README.md").write_text("\n".join(card))
