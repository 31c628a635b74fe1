"""Word problems in GSM8K's format, demonstrations of them, and a small untrained model with a tokenizer of its own.

    python recipes/gsm8k-mini/make.py        # a few seconds; writes data/ and untrained/ beside this file

A problem is a story of three or four events that happen to one number:

    Nora has 24 shells. She finds 9 more shells. Then she gives 5 shells to a friend. Later the number of shells
    doubles. How many shells does Nora have now?
    24 + 9 = <<24+9=33>>33 ... #### 56

A *template* is how it is told: which sentence begins it, which events follow in which words, which question ends it.
One template in five is kept for the test, so every test problem is new, and so is the way it is told. The sentences
that templates are made of are all known: a model of two million parameters, trained on nothing else, knows no others.

Three of five demonstrations state the answer at once, two of five work it out; both are right.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, set_seed

HERE = Path(__file__).parent
NAMES = [
    "Nora",
    "Ben",
    "Lily",
    "Omar",
    "Ruth",
    "Ivan",
    "Mei",
    "Paul",
    "Tara",
    "Hugo",
    "Anna",
    "Luis",
    "Wang",
    "Emma",
    "Felix",
    "Zoe",
]
THINGS = [
    "shells",
    "apples",
    "stamps",
    "marbles",
    "books",
    "coins",
    "pencils",
    "cards",
    "stickers",
    "eggs",
    "buttons",
    "cakes",
]
STARTS = (
    "{name} has {a} {things}.",
    "{name} starts the day with {a} {things}.",
    "There are {a} {things} in the bag of {name}.",
    "{name} counts {a} {things} on the table.",
    "At first {name} owns {a} {things}.",
)
EVENTS = {
    "+": (
        "{name} buys {b} more {things}.",
        "A friend gives {name} {b} {things}.",
        "Then {name} finds {b} {things}.",
        "In the afternoon {b} {things} are added.",
        "{name} gets {b} {things} for a birthday.",
    ),
    "-": (
        "{name} gives {b} {things} to a neighbour.",
        "Then {name} loses {b} {things}.",
        "On the way home {b} {things} are lost.",
        "{name} sells {b} of the {things}.",
        "{b} {things} turn out to be broken and are thrown away.",
    ),
    "*": (
        "Then the number of {things} becomes {b} times as large.",
        "A magician makes {b} {things} out of each of them.",
        "For a show {name} needs {b} times as many {things} and gets them.",
    ),
}
LARGEST = 60
"""No number on the way is larger: a model so small has to know its sums by heart."""
QUESTIONS = (
    "How many {things} does {name} have now?",
    "How many {things} are there in the end?",
    "What is the number of {things} at last?",
    "How many {things} is that?",
)
SPLIT = r"""[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"""


@dataclass(frozen=True)
class Template:
    """How a story is told; indices into the sentences above."""

    start: int
    events: tuple[tuple[str, int], ...]
    question: int

    @property
    def is_for_the_test(self) -> bool:
        """One in five, by a hash, so that it does not depend on what else was drawn."""
        return hashlib.blake2b(repr(self).encode(), digest_size=1).digest()[0] % 5 == 0


def drawn_template(rng: random.Random) -> Template:
    """Three or four events in some words."""
    kinds = [rng.choice("++--*") for _ in range(rng.choice((3, 3, 4)))]
    events = tuple((kind, rng.randrange(len(EVENTS[kind]))) for kind in kinds)
    return Template(rng.randrange(len(STARTS)), events, rng.randrange(len(QUESTIONS)))


def told(template: Template, rng: random.Random) -> dict[str, str] | None:
    """A row as GSM8K has them, or None where the numbers drawn go out of bounds."""
    name, things = rng.choice(NAMES), rng.choice(THINGS)
    value = rng.randint(3, 30)
    story, steps = [STARTS[template.start].format(name=name, things=things, a=value)], []
    for kind, which in template.events:
        b = rng.randint(2, 3) if kind == "*" else rng.randint(2, 9)
        result = {"+": value + b, "-": value - b, "*": value * b}[kind]
        if not 0 < result <= LARGEST:
            return None
        story.append(EVENTS[kind][which].format(name=name, things=things, b=b))
        steps.append(f"{value} {kind} {b} = <<{value}{kind}{b}={result}>>{result}")
        value = result
    story.append(QUESTIONS[template.question].format(name=name, things=things))
    return {"question": " ".join(story), "answer": "\n".join([*steps, f"#### {value}"])}


def rows(count: int, *, for_the_test: bool, rng: random.Random) -> Iterator[dict[str, str]]:
    """So many different problems of one side."""
    seen: set[str] = set()
    while len(seen) < count:
        template = drawn_template(rng)
        row = told(template, rng) if template.is_for_the_test is for_the_test else None
        if row is not None and row["question"] not in seen:
            seen.add(row["question"])
            yield row


def demonstration(row: dict[str, str], rng: random.Random) -> dict[str, object]:
    """A right answer to a problem: stated at once, or worked out."""
    steps, _, answer = row["answer"].partition("#### ")
    for mark in {part.partition(">>")[0] for part in steps.split("<<")[1:]}:
        steps = steps.replace(f"<<{mark}>>", "")
    worked = rng.random() < 0.4
    return {
        "prompt": [{"role": "user", "content": row["question"]}],
        "completion": f"\n{steps}#### {answer}" if worked else f"\n#### {answer}",
    }


def write_rows(path: Path, lines: list[dict]) -> None:
    """As jsonl."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_model(folder: Path, texts: list[str], seed: int) -> None:
    """Qwen2's architecture, two million parameters, and a tokenizer of merged bytes that splits numbers into digits."""
    tokenizer = Tokenizer(models.BPE())
    # Split as Qwen2's own tokenizer splits: AutoTokenizer makes one of whatever lies beside a Qwen2 model.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=640, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet)
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token=None)
    config = Qwen2Config(
        vocab_size=len(fast),
        hidden_size=192,
        intermediate_size=576,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=None,
    )
    set_seed(seed)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(str(folder))


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=40_000)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    train = list(rows(arguments.rows, for_the_test=False, rng=rng))
    test = list(rows(512, for_the_test=True, rng=rng))
    demonstrations = [demonstration(row, rng) for row in train]
    data = arguments.out / "data"
    data.mkdir(parents=True, exist_ok=True)
    write_rows(data / "train.jsonl", train)
    write_rows(data / "test.jsonl", test)
    write_rows(data / "demonstrations.jsonl", demonstrations)
    texts = [f"{row['prompt'][0]['content']}{row['completion']}" for row in demonstrations[:4000]]
    write_model(arguments.out / "untrained", texts, arguments.seed)


if __name__ == "__main__":
    main()
