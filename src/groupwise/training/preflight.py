"""The worst case of a recipe, once, before the first step: so that a run fails in its first minute or not at all.

Longest prompts, as many rows as the engine takes, for two tokens, and the keys and values of full completions reserved
on top; the gradient of one micro-batch at the token budget, and the optimizer's state; the trained weights written into
the run's folder, read back and compared. Weights and random numbers are as before: a run is the same, number by number,
with it and without.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from groupwise.engines.embedded import EmbeddedEngine
from groupwise.errors import EngineError, RunError
from groupwise.learner.learner import Learner
from groupwise.models.scarce import is_out_of_memory
from groupwise.runs.files import cannot_write
from groupwise.training.build import Parts, sampling_of
from groupwise.training.plan import known_tokens, sampling_bytes, worst_micro_batch
from groupwise.types import Completion, Group, Problem, Rollout

_TOKENS = 2

NO_ROOM = (
    "out of memory before the first step, while {}. Ways out, the cheapest first: lower engine.max_rows, "
    "sampling.max_new_tokens or train.group_size; take a smaller model.id"
)


async def preflight(parts: Parts, engine: EmbeddedEngine, learner: Learner, folder: Path) -> str:
    """Do it; what does not fit is an error of groupwise with the ways out. Says what it did and how long it took."""
    start = time.perf_counter()
    with torch.random.fork_rng():
        await _sample(parts, engine)
        tokens = await _learn(parts, learner)
    _save_and_load(parts, folder)
    prompt = max(map(len, parts.train.prompt_ids))
    return (
        f"preflight: the worst case of this recipe, prompts of {prompt:,} tokens and a micro-batch of {tokens:,}, was "
        f"sampled, learnt, saved and loaded in {time.perf_counter() - start:.1f} s"
    )


async def _sample(parts: Parts, engine: EmbeddedEngine) -> None:
    recipe = parts.recipe
    group = recipe.train.group_size
    rows = min(engine.limit.rows, recipe.train.prompts_per_step * group)
    longest = max(parts.train.prompt_ids, key=len)
    short = replace(sampling_of(recipe), max_new_tokens=_TOKENS, stop=(), stop_token_ids=())
    sizes = [min(group, rows - first) for first in range(0, rows, group)]
    try:
        await asyncio.gather(*(engine.sample(longest, n, short, range(n)) for n in sizes))
        while not _has_room(parts, engine) and engine.limit.halve(rows):
            pass
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise EngineError(NO_ROOM.format(f"sampling {rows} completions at once")) from error


def _has_room(parts: Parts, engine: EmbeddedEngine) -> bool:
    """For the keys and values of full completions; an error if there is none for a single one."""
    shape = worst_micro_batch(parts)
    size = sampling_bytes(parts.policy, parts.recipe, shape, engine.limit.rows)["keys and values"]
    try:
        torch.zeros(size, dtype=torch.uint8, device=parts.policy.device).fill_(1)
    except Exception as error:
        if not is_out_of_memory(error) or engine.limit.rows == 1:
            raise
        return False
    return True


async def _learn(parts: Parts, learner: Learner) -> int:
    """The gradient of a micro-batch, thrown away; halved until it fits, as in a step. Returns its tokens."""
    shape = worst_micro_batch(parts)
    groups = [
        Group(Problem(f"preflight/{number}", ""), tree.trunk, tuple(map(_rollout, tree.branches)))
        for number, tree in enumerate(shape.trees(known_tokens(parts.policy)))
    ]
    await learner.rehearse(groups)
    return min(shape.tokens, learner.limit.tokens)


def _rollout(token_ids: tuple[int, ...]) -> Rollout:
    return Rollout(Completion(token_ids, (-1.0,) * len(token_ids), "stop", ""), reward=1.0, advantage=1.0)


def _save_and_load(parts: Parts, folder: Path) -> None:
    """Whether what is trained can be written there, and comes back as it was."""
    path = folder / "preflight.safetensors"
    # Contiguous copies: what a model ties or slices, safetensors refuses.
    weights = {name: p.detach().cpu().clone().contiguous() for name, p in parts.policy.trainable().items()}
    try:
        save_file(weights, path)
        read = load_file(path)
    except (OSError, RuntimeError) as error:
        raise RunError(f"{cannot_write(path, error) if isinstance(error, OSError) else error}") from error
    finally:
        path.unlink(missing_ok=True)
    different = [name for name, value in weights.items() if not _same(read[name], value)]
    if different:
        raise RunError(
            f"{path} came back other than it was written ({different[0]}, and {len(different) - 1} more): this disk or "
            "memory cannot be trusted with a checkpoint. Choose another folder (run.folder)"
        )


def _same(read: torch.Tensor, value: torch.Tensor) -> bool:
    """Bit by bit, so that a NaN is the same as itself."""
    return (
        torch.equal(read.view(torch.uint8), value.view(torch.uint8))
        if value.numel() and value.ndim
        else bool(read == value)
    )
