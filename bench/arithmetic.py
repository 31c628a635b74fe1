"""How much arithmetic a step cannot do without, and how fast this machine multiplies matrices: the floor of a step.

Counted is what any implementation of the same step has to compute, each prompt once:

    2 x parameters    per token that is read while sampling (prompts and completions)
    6 x parameters    per token of the update (forward, and backward to features and to weights); 2 more for each pass
                      that only scores (reference)
    4 x parameters    per such token, where the weights are frozen (LoRA): forward, and backward to features; the
                      adapter's own count 6 x, and nothing while sampling, where they could be merged

The embedding matrix is a look-up at the bottom and counts only as the head, which only completion tokens need; the last
token of a completion is never read. Attention on top: 4 x width for each pair of a token and one that it sees, in each
layer. Norms, activations, softmax and the optimizer count nothing, so no implementation reaches the floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workloads import Shape, Workload


@dataclass(frozen=True, slots=True)
class Step:
    """The tokens of a step: for each problem the length of its prompt and those of its completions."""

    prompts: Sequence[int]
    completions: Sequence[Sequence[int]]

    @property
    def generated(self) -> int:
        """Completion tokens."""
        return sum(map(sum, self.completions))

    @property
    def read(self) -> int:
        """Tokens that the body of the model has to see: prompts once, completions without their last token."""
        return sum(self.prompts) + sum(length - 1 for lengths in self.completions for length in lengths)

    @property
    def pairs(self) -> int:
        """Pairs of a token and one that it sees, itself included."""
        total = 0
        for prompt, lengths in zip(self.prompts, self.completions, strict=True):
            total += triangle(prompt) + sum((length - 1) * prompt + triangle(length - 1) for length in lengths)
        return total


def triangle(tokens: int) -> int:
    """Pairs in a causal sequence: 1 + 2 + ... + tokens."""
    return tokens * (tokens + 1) // 2


def body_parameters(shape: Shape) -> int:
    """Weights of the matrices in all layers: queries and output, keys and values, and the three of the MLP.

    Example: SMALL has 4 x (2 x 256 x 256 + 2 x 256 x 128 + 3 x 256 x 768) = 3,145,728.
    """
    keys = shape.hidden // shape.heads * shape.kv_heads
    attention = 2 * shape.hidden * shape.hidden + 2 * shape.hidden * keys
    return shape.layers * (attention + 3 * shape.hidden * shape.intermediate)


def adapter_parameters(shape: Shape, rank: int) -> int:
    """Weights of LoRA on all linear layers: rank x (inputs + outputs) of each."""
    keys = shape.hidden // shape.heads * shape.kv_heads
    sides = 2 * (shape.hidden + shape.hidden) + 2 * (shape.hidden + keys) + 3 * (shape.hidden + shape.intermediate)
    return shape.layers * rank * sides


@dataclass(frozen=True, slots=True)
class Operations:
    """Floating-point operations of a step, by what they are for."""

    sampling: float
    sampling_attention: float
    learning: float
    learning_attention: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.sampling + self.sampling_attention + self.learning + self.learning_attention


def operations(workload: Workload, step: Step) -> Operations:
    """What a step of this workload has to compute.

    With mu = 3 and a reference there are 3 updates and a scoring pass; the sampler's logprobs are the old ones.
    """
    shape = workload.shape
    body, head = body_parameters(shape), shape.vocabulary * shape.hidden
    adapter = 0 if workload.lora is None else adapter_parameters(shape, workload.lora)
    forward = 2 * body * step.read + 2 * head * step.generated
    attention = 4 * shape.hidden * shape.layers * step.pairs
    update = 3 * forward if workload.lora is None else 2 * forward + 6 * adapter * step.read
    scoring = 1 if workload.beta else 0
    return Operations(
        sampling=forward,
        sampling_attention=attention,
        learning=workload.passes * update + scoring * forward,
        learning_attention=(3 * workload.passes + scoring) * attention,
    )


def by_part(workload: Workload, step: Step) -> dict[str, dict[str, float]]:
    """The same by the large parts that `breakdown.py` tells apart, halves of a step first. Prompts are read before the
    decoding steps begin."""
    whole, reading = operations(workload, step), operations(workload, Step(step.prompts, [[] for _ in step.prompts]))
    decoding = whole.sampling + whole.sampling_attention - reading.sampling - reading.sampling_attention
    return {
        "decode": {"compiled step": decoding},
        "learn": {"GEMM": whole.learning, "attention": whole.learning_attention},
    }


FEW = 16
"""Rows of a decoding step in the tail of a batch."""


def decoding_rows(step: Step) -> dict[str, float]:
    """How many decoding steps there are, how many completions are still going on average, and the share of steps with
    few of them. The first token of each comes of its prompt.

    Example: completions of 3 and 2 tokens take 2 steps, of 2 rows and of 1.
    """
    lengths = [length for of_group in step.completions for length in of_group]
    rows = [sum(length > place for length in lengths) for place in range(1, max(lengths))]
    return {"steps": len(rows), "mean": sum(rows) / len(rows), "few": sum(count <= FEW for count in rows) / len(rows)}


def step_of(workload: Workload, row: dict) -> Step:
    """The tokens of a step that one of the sides has measured."""
    lengths = row["lengths"]
    groups = [lengths[start : start + workload.group] for start in range(0, len(lengths), workload.group)]
    return Step(row["prompts"], groups)


def gemm_rates(sizes: Sequence[int] = (1024, 1536, 2048), seconds: float = 0.5) -> dict[str, float]:
    """The most operations per second that a square multiplication reaches here, by precision: best of all tries, with
    torch's products and with our own."""
    import time

    import torch

    from groupwise.models.products import multiply

    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        best = 0.0
        for size in sizes:
            left, right, out = (torch.randn(size, size, dtype=dtype) for _ in range(3))
            for product in (lambda a, b, to: torch.mm(a, b, out=to), multiply):
                product(left, right, out)
                end = time.perf_counter() + seconds / 2
                while time.perf_counter() < end:
                    start = time.perf_counter()
                    product(left, right, out)
                    best = max(best, 2 * size**3 / (time.perf_counter() - start))
        rates[name] = best
    return rates


def main():
    """Print the rates as JSON, for whoever measures."""
    import json

    print(json.dumps(gemm_rates()))


if __name__ == "__main__":
    main()
