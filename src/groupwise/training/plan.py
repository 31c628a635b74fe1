"""How much memory a run will hold at its peak, part by part, before it runs.

What a parameter costs is arithmetic, and what a decoder holds it says itself. What a token costs in the backward pass
depends on the architecture and on how it is run, so it is measured: smaller micro-batches of the recipe's own shapes
(longest prompt, full completions) under torch's memory profiler, scaled, and a pass over a chunk of features for the
logits.

    plan = memory_plan(parts)
    plan.parts      {"process": 420e6, "weights": 13e6, "gradients": 13e6, ..., "activations": 350e6, "logits": 2e6}
    plan.peak       what is held at once; learning and sampling take turns with the same memory
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from torch import Tensor

from groupwise.config import Recipe
from groupwise.engines.choice import choose_decoder
from groupwise.engines.decoders import Decoder
from groupwise.engines.holding import Batch
from groupwise.learner.memory import token_budget
from groupwise.learner.packing import room_of
from groupwise.models.allocator import give_freed_memory_back
from groupwise.models.policy import Policy
from groupwise.models.tables import adding_up
from groupwise.models.tiles import scored
from groupwise.models.trees import Tree
from groupwise.runs.parquet import write_table
from groupwise.training.build import Parts
from groupwise.training.machine import memory_free, resident
from groupwise.training.peaks import Peak, peak_of

_LENGTHS = 12
"""At some ten products for each, they fill the 128 places."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The largest micro-batch that a recipe can give: so many prompts, and completions in all of them."""

    prompt: int
    completion: int
    groups: int
    branches: int

    @property
    def tokens(self) -> int:
        """Of the micro-batch."""
        return self.groups * self.prompt + self.branches * self.completion

    def batch(self, rows: int, prompts: int) -> Batch:
        """So many such completions of so many such prompts, sampled at once."""
        return Batch(prompts, self.prompt, rows, self.completion)

    def trees(self, vocabulary: int, seed: int = 0) -> list[Tree]:
        """Such a micro-batch, of random tokens."""
        generator = torch.Generator().manual_seed(seed)

        def tokens(count: int) -> tuple[int, ...]:
            return tuple(torch.randint(vocabulary, (count,), generator=generator).tolist())

        shares = [self.branches // self.groups + (g < self.branches % self.groups) for g in range(self.groups)]
        return [Tree(tokens(self.prompt), tuple(tokens(self.completion) for _ in range(n))) for n in shares if n]


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes by part, the most that is held at once, and what the machine has for it."""

    always: Mapping[str, int]
    learning: Mapping[str, int]
    sampling: Mapping[str, int]
    available: int
    shape: Shape

    @property
    def parts(self) -> Mapping[str, int]:
        """All of them."""
        return {**self.always, **self.learning, **self.sampling}

    @property
    def peak(self) -> int:
        """Learning and sampling take turns."""
        return sum(self.always.values()) + max(sum(self.learning.values()), sum(self.sampling.values()))

    @property
    def fits(self) -> bool:
        """Whether the machine has what the plan needs."""
        return self.peak <= self.available

    def phases(self) -> Mapping[str, Mapping[str, int]]:
        """The parts that are there all the time, and those of learning and sampling."""
        return {"always": self.always, "learning": self.learning, "sampling": self.sampling}


def worst_micro_batch(parts: Parts) -> Shape:
    """The longest prompt with full completions, as many as the token budget takes, cut as the learner cuts them."""
    recipe, policy = parts.recipe, parts.policy
    prompt = max(map(len, parts.train.prompt_ids))
    completion = max(min(recipe.sampling.max_new_tokens, policy.context - prompt), 1)
    budget, group = token_budget(recipe.learner, policy.device), recipe.train.group_size
    whole = prompt + group * completion
    if whole > budget:
        return Shape(prompt, completion, 1, min(group, max((room_of(prompt, budget) - prompt) // completion, 1)))
    groups = -(-recipe.train.prompts_per_step // recipe.learner.updates_per_batch)
    groups = min(budget // whole, groups)
    return Shape(prompt, completion, groups, groups * group)


def memory_plan(parts: Parts) -> MemoryPlan:
    """Look at the policy as it is loaded. Leaves it, its gradients and all random numbers as they were."""
    policy, recipe, shape = parts.policy, parts.recipe, worst_micro_batch(parts)
    weights = _bytes(policy.model.parameters()) + _bytes(policy.model.buffers())
    trained = sum(p.numel() for p in policy.trainable().values())
    rounded = sum(p.numel() for p in policy.trainable().values() if p.element_size() < 4)
    state = 1 if recipe.optimizer.kind == "adamw_8bit" else 4
    has_reference = recipe.algorithm.beta > 0 and (policy.adapted is None or recipe.reference.every is not None)
    rows = min(recipe.engine.max_rows, recipe.train.prompts_per_step * recipe.train.group_size)
    with torch.random.fork_rng(), _gradients_aside(policy):
        make = choose_decoder(policy)
        held = _held_once_warm(policy)  # before the profiler keeps what it has seen
        sampling, stays = _sampling(policy, make(policy), shape.batch(rows, -(-rows // recipe.train.group_size)))
        # From the second micro-batch on they are there: only what is made beside them is counted.
        for parameter in policy.trainable().values():
            parameter.grad = torch.zeros_like(parameter)
        activations, logits = _activations(policy, shape), _logits(policy, recipe, shape)
    filled = _filled(recipe, shape, token_budget(recipe.learner, policy.device))
    activations = Peak(*(int(size * filled) for size in activations))
    learning = {
        "gradients": _bytes(policy.trainable().values()) + 4 * rounded,
        "activations": activations.used,
        "logits": logits.used,
        "gaps between them": activations.gaps + logits.gaps,
    }
    always = {
        "process": max(held - weights, 0),
        "weights": weights,
        "optimizer": 2 * state * trained + 4 * rounded,
        "reference": _bytes(policy.trainable().values()) if has_reference else 0,
        **stays,
    }
    # A checkpoint is copied when the gradients are gone, and written while the next step is sampled.
    copied = policy.device.type == "cpu" and _saves_beside(recipe)
    sampling |= {"checkpoint": _bytes(policy.trainable().values()) + always["optimizer"] if copied else 0}
    return MemoryPlan(always, learning, sampling, _available(policy, held), shape)


def _saves_beside(recipe: Recipe) -> bool:
    """Whether a checkpoint is written while training goes on; the last one is waited for."""
    section = recipe.checkpoints
    often = [section.every, recipe.evaluation.every if section.best else 0]
    return section.background and any(0 < every < recipe.train.steps for every in often)


def _filled(recipe: Recipe, shape: Shape, budget: int) -> float:
    """How much larger a micro-batch can be than one of full completions: shorter ones fill the token budget better."""
    groups = -(-recipe.train.prompts_per_step // recipe.learner.updates_per_batch)
    whole = groups * (shape.prompt + recipe.train.group_size * shape.completion)
    return max(min(budget, whole) / shape.tokens, 1.0)


def _held_once_warm(policy: Policy) -> int:
    """What this process holds with everything loaded that a step needs: libraries load parts of themselves late, and
    the tables of a run's records are written by one that is large. On a CPU, products of 16 bits are compiled for each
    number of tokens and kept, up to a limit (see `groupwise/__init__.py`) that some lengths reach."""
    with TemporaryDirectory() as folder:
        write_table(Path(folder) / "warm", {"text": "text", "numbers": "numbers"}, {"text": [""], "numbers": [[0.0]]})
    compiles = policy.device.type == "cpu" and policy.dtype.itemsize < 4
    for length in range(2, 2 + (_LENGTHS if compiles else 1)):
        with policy.training():
            features = policy.features([Tree((0, 0), ((0,) * length, (0,)))])
            cast(Any, features).backward(torch.ones_like(features))
    _forget_gradients(policy)
    give_freed_memory_back()
    return resident() if policy.device.type == "cpu" else 0


def _sampling(policy: Policy, decoder: Decoder, batch: Batch) -> tuple[dict[str, int], dict[str, int]]:
    """Its copy of the weights; keys and values of full completions; what reading all prompts takes beyond these, which
    are not there yet, unless their room stays; the logits of a token. And what stays while nobody samples."""
    prompt = Shape(batch.prompt, 1, 1, 1).trees(known_tokens(policy))[0].trunk

    def read() -> None:
        with torch.inference_mode():
            decoder.admit([prompt], [-(-batch.rows // batch.prompts)])

    try:
        held = decoder.holds(batch)
        read()  # what is made once is not counted
        decoder.keep([])
        reading = batch.prompts * peak_of(read, policy.device).used
    finally:
        decoder.rest()
    keys_and_values = {"keys and values": held.keys_and_values}
    return {
        "decoder": held.weights,
        **({} if held.stays else keys_and_values),
        "reading prompts": max(reading - (0 if held.stays else held.keys_and_values), 0),
        "logits of a token": 3 * batch.rows * policy.vocabulary * 4,
    }, keys_and_values if held.stays else {}


def _activations(policy: Policy, shape: Shape) -> Peak:
    """Of a forward and a backward pass without the head, one group of the micro-batch, or, where it is but one, a
    part of its completions and the line through two such parts."""

    def cost(groups: int, branches: int) -> Peak:
        part = Shape(shape.prompt, shape.completion, groups, branches)
        trees = part.trees(known_tokens(policy))

        def there_and_back() -> None:
            with policy.training():
                features = policy.features(trees)
                with adding_up():
                    cast(Any, features).backward(torch.ones_like(features))

        return peak_of(there_and_back, policy.device, part.tokens / shape.tokens)

    cost(1, 1)  # what is made once is not counted
    if shape.groups > 1:
        one = cost(1, max(shape.branches // shape.groups, 1))
        return Peak(shape.groups * one.used, shape.groups * one.gaps)
    few, some = max(shape.branches // 4, 1), max(shape.branches // 2, 2)
    pairs = zip(cost(1, few), cost(1, some), strict=True)
    rest = (shape.branches - some) / max(some - few, 1)
    return Peak(*(int(second + (second - first) * rest) for first, second in pairs))


def _logits(policy: Policy, recipe: Recipe, shape: Shape) -> Peak:
    """Of a chunk of tokens, forward and backward."""
    count = min(recipe.learner.logprob_chunk, shape.branches * shape.completion)
    with torch.no_grad():
        width = policy.features([Tree((0,), ((0,),))]).shape[-1]
    dtype = policy.model.dtype
    targets = torch.zeros(count, dtype=torch.long, device=policy.device)

    def there_and_back() -> None:
        features = torch.zeros(count, width, dtype=dtype, device=policy.device, requires_grad=True)
        logprobs_T, _ = scored(
            features, targets, policy.head, temperature=1.0, chunk=recipe.learner.logprob_chunk, with_entropy=True
        )
        with adding_up():
            cast(Any, logprobs_T.sum()).backward()

    return peak_of(there_and_back, policy.device)


def _available(policy: Policy, held: int) -> int:
    if policy.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(policy.device)
        return free + torch.cuda.memory_reserved(policy.device)
    return memory_free() + held


def known_tokens(policy: Policy) -> int:
    """Token ids that the model can read and predict."""
    embeddings: Any = policy.model.get_input_embeddings()
    return min(int(embeddings.num_embeddings), policy.vocabulary)


@contextmanager
def _gradients_aside(policy: Policy) -> Generator[None]:
    """Inside there are none, and afterwards those that a program may have left there, whatever goes wrong."""
    before = [(parameter, parameter.grad) for parameter in policy.trainable().values()]
    _forget_gradients(policy)
    try:
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient


def _forget_gradients(policy: Policy) -> None:
    for parameter in policy.trainable().values():
        parameter.grad = None


def _bytes(tensors: Any) -> int:
    several: Sequence[Tensor] = list(tensors)
    return sum(tensor.numel() * tensor.element_size() for tensor in several)
