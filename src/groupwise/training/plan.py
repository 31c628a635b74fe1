"""How much memory a run will hold at its peak, part by part, before it runs.

What a parameter costs is arithmetic. What a token costs in the backward pass depends on the architecture and on how it
is run, so it is measured: smaller micro-batches of the recipe's own shapes (longest prompt, full completions) under
torch's memory profiler, scaled, and a pass over a chunk of features for the logits.

    plan = memory_plan(parts)
    plan.parts      {"process": 420e6, "weights": 13e6, "gradients": 13e6, ..., "activations": 350e6, "logits": 2e6}
    plan.peak       what is held at once; on a GPU learning and sampling take turns with the same memory
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from groupwise.config import Recipe
from groupwise.engines.choice import choose_decoder
from groupwise.maths.logprobs import chunked_logprobs
from groupwise.models.policy import Policy
from groupwise.models.trees import Tree
from groupwise.training.build import Parts
from groupwise.training.machine import memory_free, resident

_SMALL_ENOUGH_TO_FUSE = 256 << 20
"""Models below this are sampled from through a copy of their matrices (engines/fused.py)."""
_FRAGMENTS = 0.15
"""Of what sampling and learning take in turn, so much more is held on a CPU. Found on the bench's workloads."""
_ROOM = 1.25
"""Keys and values are kept in columns with room for more."""


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

    parts: Mapping[str, int]
    peak: int
    available: int
    shape: Shape

    @property
    def fits(self) -> bool:
        """Whether the machine has what the plan needs."""
        return self.peak <= self.available


def worst_micro_batch(parts: Parts) -> Shape:
    """The longest prompt with full completions, as many as the token budget takes, cut as the learner cuts them."""
    recipe, policy = parts.recipe, parts.policy
    prompt = max(map(len, parts.train.prompt_ids))
    completion = max(min(recipe.sampling.max_new_tokens, policy.context - prompt), 1)
    budget, group = recipe.learner.token_budget, recipe.train.group_size
    whole = prompt + group * completion
    if whole > budget:
        return Shape(prompt, completion, 1, min(group, max((budget - prompt) // completion, 1)))
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
    held = _held_once_warm(policy)
    with torch.random.fork_rng():
        learning = {"activations": _activations(policy, shape), "logits": _logits(policy, recipe, shape)}
    rows = min(recipe.engine.max_rows, recipe.train.prompts_per_step * recipe.train.group_size)
    sampling = sampling_bytes(policy, shape, rows=rows, prompts=-(-rows // recipe.train.group_size))
    always = {
        "process": max(held - weights, 0),
        "weights": weights,
        "gradients": _bytes(policy.trainable().values()) + 4 * rounded,
        "optimizer": 2 * state * trained + 4 * rounded,
        "reference": _bytes(policy.trainable().values()) if has_reference else 0,
    }
    if policy.device.type == "cpu":
        # What was freed stays with the process, in pieces that do not fit what comes next.
        taken_in_turn = sum(learning.values()) + sum(sampling.values())
        learning["allocator"] = int(_FRAGMENTS * taken_in_turn)
        peak = sum(always.values()) + sum(learning.values()) + sum(sampling.values())
    else:
        peak = sum(always.values()) + max(sum(learning.values()), sum(sampling.values()))
    return MemoryPlan({**always, **learning, **sampling}, peak, _available(policy, held), shape)


def _held_once_warm(policy: Policy) -> int:
    """What this process holds with everything loaded that a step needs: libraries load parts of themselves late."""
    choose_decoder(policy)
    with policy.training():
        features = policy.features([Tree((0, 0), ((0, 0), (0,)))])
        cast(Any, features).backward(torch.ones_like(features))
    _forget_gradients(policy)
    return resident() if policy.device.type == "cpu" else 0


def sampling_bytes(policy: Policy, shape: Shape, *, rows: int, prompts: int) -> dict[str, int]:
    """While sampling so many rows of so many prompts at once: keys and values of every row, the matrices that are made
    for it, and the logits of a token."""
    config = cast("Mapping[str, Any]", policy.model.config.get_text_config().to_dict())
    heads = int(config.get("num_attention_heads") or config.get("n_head") or 1)
    layers = int(config.get("num_hidden_layers") or config.get("n_layer") or 1)
    width = int(config.get("hidden_size") or config.get("n_embd") or 1)
    dim, kv_heads = int(config.get("head_dim") or width // heads), int(config.get("num_key_value_heads") or heads)
    per_token = 2 * layers * kv_heads * dim * policy.model.dtype.itemsize
    tokens = prompts * shape.prompt + int(rows * shape.completion * _ROOM)
    weights = _bytes(policy.model.parameters())
    return {
        "keys and values": per_token * tokens,
        "decoder": weights if weights < _SMALL_ENOUGH_TO_FUSE else 0,
        "logits of a token": 3 * rows * policy.vocabulary * 4,
    }


def _activations(policy: Policy, shape: Shape) -> int:
    """Of a forward and a backward pass without the head, one group of the micro-batch, or, where it is but one, a
    part of its completions and the line through two such parts. The most is held where the backward pass begins, before
    there is a gradient of a weight."""

    def cost(groups: int, branches: int) -> int:
        trees = Shape(shape.prompt, shape.completion, groups, branches).trees(known_tokens(policy))

        def there_and_back() -> None:
            with policy.training():
                features = policy.features(trees)
                cast(Any, features).backward(torch.ones_like(features))

        try:
            return _peak_of(there_and_back, policy)
        finally:
            _forget_gradients(policy)

    cost(1, 1)  # what is made once is not counted
    if shape.groups > 1:
        whole = shape.groups * cost(1, max(shape.branches // shape.groups, 1))
    else:
        few, some = max(shape.branches // 4, 1), max(shape.branches // 2, 2)
        first, second = cost(1, few), cost(1, some)
        whole = second + (second - first) // max(some - few, 1) * (shape.branches - some)
    return whole


def _logits(policy: Policy, recipe: Recipe, shape: Shape) -> int:
    """Of a chunk of tokens, forward and backward."""
    count = min(recipe.learner.logprob_chunk, shape.branches * shape.completion)
    with torch.no_grad():
        width = policy.features([Tree((0,), ((0,),))]).shape[-1]
    dtype = policy.model.dtype
    targets = torch.zeros(count, dtype=torch.long, device=policy.device)

    def there_and_back() -> None:
        features = torch.zeros(count, width, dtype=dtype, device=policy.device, requires_grad=True)
        scored = chunked_logprobs(
            features, targets, policy.head, temperature=1.0, chunk=recipe.learner.logprob_chunk, with_entropy=True
        )
        cast(Any, scored[0].sum()).backward()

    try:
        return _peak_of(there_and_back, policy)
    finally:
        _forget_gradients(policy)


def _peak_of(work: Callable[[], None], policy: Policy) -> int:
    """The most bytes of tensors that the work holds at once beyond what was there before."""
    if policy.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(policy.device)
        before = torch.cuda.memory_allocated(policy.device)
        work()
        return torch.cuda.max_memory_allocated(policy.device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        work()
    inner: Any = profiled.profiler
    events = [event for event in inner.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=_start):
        held += int(event.nbytes())
        most = max(most, held)
    return most


def _start(event: Any) -> int:
    return int(event.start_ns())


def _available(policy: Policy, held: int) -> int:
    if policy.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(policy.device)
        return free + torch.cuda.memory_reserved(policy.device)
    return memory_free() + held


def known_tokens(policy: Policy) -> int:
    """Token ids that the model can read and predict."""
    embeddings: Any = policy.model.get_input_embeddings()
    return min(int(embeddings.num_embeddings), policy.vocabulary)


def _forget_gradients(policy: Policy) -> None:
    for parameter in policy.trainable().values():
        parameter.grad = None


def _bytes(tensors: Any) -> int:
    several: Sequence[Tensor] = list(tensors)
    return sum(tensor.numel() * tensor.element_size() for tensor in several)
