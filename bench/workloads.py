"""What is measured: the workloads W0 to W5, and the models and prompts that they are made of.

Standard library only: both sides import this, each in a virtualenv of its own.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass

PROMPTS = 256
"""So many there are of a workload's prompts: enough for sixteen steps of sixteen problems without a second look."""
CHARACTERS = "0123456789+-*/ abcdefghij"
"""Of prompts."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder of transformers with random weights. `ends_after` is the mean length of a completion.

    None: the weights are what they are, so one token in `vocabulary` ends a completion, give or take. A number: the
    end token's probability is made 1 / ends_after (see models.py). `inf`: no completion ends before its cap.
    """

    hidden: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 768
    vocabulary: int = 103
    family: str = "qwen2"
    context: int = 4096
    ends_after: float | None = None


SMALL = Shape()
"""3.2 million parameters, one token per character."""
WIDE = Shape(vocabulary=151_936, ends_after=110)
"""The same below Qwen2.5's vocabulary."""
SMOLLM_135M = Shape(576, 30, 9, 3, 1536, 49_152, "llama", context=2048)


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of GRPO step. A prompt has as many tokens as `prompt` says, from the shortest to the longest.

    The learning rate is lower where one update of AdamW would move a hundred thousand embeddings in the direction that
    ends completions, or away from it: after that all go up to the cap.
    """

    name: str
    about: str
    shape: Shape
    problems: int
    group: int
    prompt: tuple[int, int]
    cap: int
    lora: int | None = None
    passes: int = 1
    beta: float = 0.0
    learning_rate: float = 1e-5

    @property
    def completions(self) -> int:
        """Completions in a step."""
        return self.problems * self.group

    def micro_batches(self) -> list[int]:
        """How many completions at once TRL's backward pass is tried with."""
        sizes = (self.group // 8, self.group // 4, self.group // 2, self.group, 2 * self.group)
        return [size for size in sizes if size and self.completions % size == 0]

    def to_json(self) -> str:
        """For the command line of a measuring process; see `workload_of`."""
        return json.dumps(asdict(self))

    def prompts(self) -> list[str]:
        """One character is one token. Each begins with its number, so that no two are the same."""
        rng = random.Random(0)
        texts = []
        for number in range(PROMPTS):
            length = rng.randint(*self.prompt)
            rest = "".join(rng.choice(CHARACTERS) for _ in range(length - 4))
            texts.append(f"{number:04}{rest}")
        return texts


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("W0", "short prompts, short completions: little to share", SMALL, 16, 8, (6, 6), 64),
        Workload("W1", "prompts of 200 tokens, long-tailed completions up to 512", SMALL, 8, 8, (200, 200), 512),
        Workload("W2", "prompts of 1,000 tokens, short completions", SMALL, 8, 16, (1000, 1000), 64),
        Workload("W3", "W1 with a vocabulary of 151,936", WIDE, 8, 8, (200, 200), 512, learning_rate=1e-7),
        Workload("W4", "SmolLM-135M's shape, LoRA r=16 on all linear", SMOLLM_135M, 2, 4, (256, 512), 96, lora=16),
        Workload("W5", "W1 with mu=3 and beta=0.04", SMALL, 8, 8, (200, 200), 512, passes=3, beta=0.04),
    )
}  # fmt: skip


def number_of(prompt: str) -> int:
    """Which one of `Workload.prompts` this is."""
    return int(prompt[:4])


def workload_of(text: str) -> Workload:
    """`W0` to `W5`, or what `Workload.to_json` wrote."""
    if text in WORKLOADS:
        return WORKLOADS[text]
    return workload_from(json.loads(text))


def workload_from(fields: dict) -> Workload:
    """What `dataclasses.asdict` made of a workload, as JSON keeps it."""
    return Workload(**{**fields, "shape": Shape(**fields["shape"]), "prompt": tuple(fields["prompt"])})


def reward(texts: list[str]) -> list[float]:
    """A number per completion, hardly ever the same twice in a group: every completion has something to teach."""
    return [len(set(text)) % 7 + len(text) / 1000 for text in texts]
