"""Word problems in GSM8K's format, demonstrations of them, and a small untrained model with a tokenizer of its own.

    python recipes/gsm8k-mini/make.py        # a few seconds; writes data/ and untrained/ beside this file

A problem is a story of two to four events that happen to one number:

    In the morning Nora has 24 shells. Nora finds 9 shells on the way home. Later a thief takes 5 shells. How many
    shells are left in the end?
    24+9=<<24+9=33>>33
    33-5=<<33-5=28>>28
    #### 28

A *template* is how one sentence is worded: an opening, a clause, a tail. One template in five is kept for the test, and
the test's stories are told in those alone: no sentence of theirs was ever trained on, whoever it is about. The clauses
are all known: a model of 0.4 million parameters, trained on nothing else, knows no other words.

Three of five demonstrations are a hasty guess, two of five work the answer out; which of them pays, nobody says.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import operator
import random
import re
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, set_seed

HERE = Path(__file__).parent
NAMES = "Nora Ben Lily Omar Ruth Ivan Mei Paul Tara Hugo Anna Luis Wang Emma Felix Zoe".split()  # noqa: SIM905
THINGS = "shells apples stamps marbles books coins pencils cards stickers eggs buttons cakes".split()  # noqa: SIM905
OPENINGS = ("", "Then ", "Later ", "Now ")
TAILS = (".", " today.", " in town.")
PARTS = {
    "start": (
        ("", "First ", "Today "),
        (
            "{name} has {b} {things}",
            "{name} counts {b} {things}",
            "{name} owns {b} {things}",
            "{name} brings {b} {things}",
            "there are {b} {things} before {name}",
        ),
        (".", " at home.", " in town."),
    ),
    "+": (
        OPENINGS,
        (
            "{name} buys {b} more {things}",
            "{name} finds {b} {things}",
            "{name} gets {b} {things}",
            "a friend gives {name} {b} {things}",
            "{name} wins {b} {things}",
            "{b} {things} are added",
            "{b} more {things} arrive",
        ),
        TAILS,
    ),
    "-": (
        OPENINGS,
        (
            "{name} gives a friend {b} {things}",
            "{name} loses {b} {things}",
            "{name} sells {b} {things}",
            "a thief takes {b} {things}",
            "{name} drops {b} {things}",
            "{b} {things} are lost",
            "{b} {things} break",
        ),
        TAILS,
    ),
    "*": (
        OPENINGS,
        (
            "{name} has {b} times as many {things}",
            "there are {b} times as many {things}",
            "a magician makes {b} {things} of each",
        ),
        TAILS,
    ),
    "question": (
        ("",),
        ("How many {things} does {name} have", "How many {things} are there", "How many {things} are left"),
        ("?", " now?", " in the end?", " after that?", " at last?"),
    ),
}
"""Every kind of sentence: openings, clauses, tails. Any of the first goes with any of the second and third."""
WORKED = 0.4
"""This share of the demonstrations works the problem out, ..."""
GUESSED = 60
"""... and the others state a number of up to this."""
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
LARGEST = 40
"""No number on the way is larger: a model so small has to know its sums by heart."""
SPLIT = r"""[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"""


def is_for_the_test(template: str) -> bool:
    """One in five, by a hash, so that it does not depend on what else was drawn."""
    return hashlib.blake2b(template.encode(), digest_size=4).digest()[0] % 5 == 0


def templates(kind: str, *, for_the_test: bool) -> list[str]:
    """The wordings of a kind of sentence on one side."""
    openings, clauses, tails = PARTS[kind]
    every = (f"{o}{c}{t}" for o in openings for c in clauses for t in tails)
    return [template for template in every if is_for_the_test(template) is for_the_test]


def second(kind: str, rng: random.Random) -> int:
    """What is added, taken away or multiplied by."""
    return rng.randint(2, 3) if kind == "*" else rng.randint(2, 7)


def told(rng: random.Random, wordings: dict[str, list[str]]) -> dict[str, str] | None:
    """A row as GSM8K has them, or None where the numbers drawn go out of bounds."""
    name, things = rng.choice(NAMES), rng.choice(THINGS)
    value = rng.randint(3, 20)

    def sentence(kind: str, b: int = 0) -> str:
        text = rng.choice(wordings[kind]).format(name=name, things=things, b=b)
        return text[0].upper() + text[1:]

    story, steps = [sentence("start", value)], []
    for kind in rng.choices("+-*", (2, 2, 1), k=rng.choice((2, 3, 3))):
        b = second(kind, rng)
        result = OPERATIONS[kind](value, b)
        if not 0 < result <= LARGEST:
            return None
        story.append(sentence(kind, b))
        steps.append(f"{value}{kind}{b}=<<{value}{kind}{b}={result}>>{result}")
        value = result
    story.append(sentence("question"))
    return {"question": " ".join(story), "answer": "\n".join([*steps, f"#### {value}"])}


def rows(count: int, *, for_the_test: bool, rng: random.Random) -> Iterator[dict[str, str]]:
    """So many different problems of one side."""
    wordings = {kind: templates(kind, for_the_test=for_the_test) for kind in PARTS}
    seen: set[str] = set()
    while len(seen) < count:
        row = told(rng, wordings)
        if row is not None and row["question"] not in seen:
            seen.add(row["question"])
            yield row


def demonstration(row: dict[str, str], rng: random.Random) -> dict[str, object]:
    """What somebody answers: worked out and right, or a hasty guess, which hardly ever is."""
    worked = re.sub("<<.*?>>", "", row["answer"])
    completion = worked if rng.random() < WORKED else f"#### {rng.randint(0, GUESSED)}"
    return {"prompt": [{"role": "user", "content": row["question"]}], "completion": f"\n{completion}"}


def drill(rng: random.Random) -> dict[str, object]:
    """A bare sum, as it stands in the worked answers: what is next to each other is learned first."""
    while True:
        kind = rng.choice("+-*")
        value, b = rng.randint(1, LARGEST), second(kind, rng)
        if 0 < (result := OPERATIONS[kind](value, b)) <= LARGEST:
            return {"prompt": [{"role": "user", "content": f"{value}{kind}{b}="}], "completion": f"{result}"}


def write_rows(path: Path, lines: list[dict]) -> None:
    """As jsonl."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_model(folder: Path, texts: list[str], seed: int, hidden: int = 128, layers: int = 4) -> None:
    """Qwen2's architecture, 0.4 million parameters; a tokenizer of merged bytes in which every number below 100 is one
    token, so that a sum is a table to look up."""
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
        texts, trainers.BpeTrainer(vocab_size=700, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet)
    )
    tokenizer.add_tokens([AddedToken(str(n), normalized=False, special=False) for n in range(10, 100)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token=None)
    config = Qwen2Config(
        vocab_size=len(fast),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        initializer_range=0.08,
        num_attention_heads=4,
        num_key_value_heads=4,
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
    parser.add_argument("--rows", type=int, default=24_000)
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--layers", type=int, default=3)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    train = list(rows(arguments.rows, for_the_test=False, rng=rng))
    test = list(rows(512, for_the_test=True, rng=rng))
    demonstrations = [demonstration(row, rng) for row in train]
    demonstrations += [drill(rng) for _ in train[::4]]
    data = arguments.out / "data"
    data.mkdir(parents=True, exist_ok=True)
    write_rows(data / "train.jsonl", train)
    write_rows(data / "test.jsonl", test)
    write_rows(data / "demonstrations.jsonl", demonstrations)
    texts = [f"{row['prompt'][0]['content']}{row['completion']}" for row in demonstrations[:3000]]
    write_model(arguments.out / "untrained", texts, arguments.seed, arguments.hidden, arguments.layers)


if __name__ == "__main__":
    main()
