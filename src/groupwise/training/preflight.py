"""The worst case of a recipe, once, before the first step: so that a run fails in its first minute or not at all.

Longest prompts, as many rows as the engine takes, for two tokens, and the keys and values of full completions reserved
on top (of a warm start: those of an evaluation); the gradient of one micro-batch at the token budget, and the
optimizer's state; the trained weights written into the run's folder, read back and compared. Weights and random numbers
are as before: a run is the same, number by number, with it and without.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from groupwise.engines.embedded import EmbeddedEngine
from groupwise.errors import EngineError, RunError
from groupwise.learner.learner import Learner
from groupwise.learner.memory import token_budget
from groupwise.learner.packing import room_of
from groupwise.models.scarce import is_out_of_memory
from groupwise.runs.files import cannot_write
from groupwise.training.build import Parts, sampling_of
from groupwise.training.plan import Shape, known_tokens, worst_micro_batch
from groupwise.types import Completion, Group, Problem, Rollout

_TOKENS = 2

NO_ROOM = (
    "out of memory before the first step, while {}. Ways out, the cheapest first: lower engine.max_rows, "
    "sampling.max_new_tokens or train.group_size; take a smaller model.id"
)


@dataclass(frozen=True, slots=True)
class WorstCase:
    """What takes the most memory: so many completions of each of so many prompts as long as the longest, and a
    micro-batch of these groups. No prompts: nothing is sampled."""

    prompt_ids: Sequence[int]
    prompts: int
    completions: int
    shape: Shape
    groups: Sequence[Group]

    @property
    def rows(self) -> int:
        """Completions that are sampled at once, if the engine takes so many."""
        return self.prompts * self.completions


def of_rewards(parts: Parts) -> WorstCase:
    """Of a step of training by rewards."""
    section, shape = parts.recipe.train, worst_micro_batch(parts)
    groups = [
        Group(Problem(f"preflight/{number}", ""), tree.trunk, tuple(map(_rollout, tree.branches)))
        for number, tree in enumerate(shape.trees(known_tokens(parts.policy)))
    ]
    longest = max(parts.train.prompt_ids, key=len)
    return WorstCase(longest, section.prompts_per_step, section.group_size, shape, groups)


def of_demonstrations(parts: Parts, demonstrations: Sequence[Group]) -> WorstCase:
    """Of a step of the warm start: the longest demonstrations, as many as a micro-batch takes; sampled from is only to
    evaluate."""
    recipe, held_out = parts.recipe, () if parts.held_out is None else parts.held_out.prompt_ids
    groups: list[Group] = []
    room = token_budget(recipe.learner, parts.policy.device)
    for group in sorted(demonstrations, key=_length, reverse=True)[: recipe.sft.rows_per_step]:
        if groups and _length(group) > room:
            break
        groups.append(group)
        room -= _length(group)
    longest: Sequence[int] = max(held_out, key=len, default=())
    completion = max(min(recipe.sampling.max_new_tokens, parts.policy.context - len(longest)), 1)
    shape = Shape(len(longest), completion, len(held_out), len(held_out))
    return WorstCase(longest, len(held_out), 1, shape, groups)


async def preflight(
    parts: Parts, engine: EmbeddedEngine, learner: Learner, folder: Path, worst: WorstCase | None = None
) -> str:
    """Do it (unless told otherwise, the worst case of training by rewards); what does not fit is an error of groupwise
    with the ways out. Says what it did and how long it took."""
    start, worst = time.perf_counter(), worst or of_rewards(parts)
    with torch.random.fork_rng():
        if worst.rows:
            await _sample(parts, engine, worst)
        await learner.rehearse(worst.groups)
    _save_and_load(parts, folder)
    longest = max((len(group.prompt_ids) for group in worst.groups), default=0)
    tokens = min(sum(map(_length, worst.groups)), room_of(longest, learner.limit.tokens))
    prompts = f"prompts of {len(worst.prompt_ids):,} tokens and " if worst.rows else ""
    done = "sampled, learnt, saved and loaded" if worst.rows else "learnt, saved and loaded"
    return (
        f"preflight: the worst case of this recipe, {prompts}a micro-batch of {tokens:,}, was {done} in "
        f"{time.perf_counter() - start:.1f} s"
    )


async def _sample(parts: Parts, engine: EmbeddedEngine, worst: WorstCase) -> None:
    rows, n = min(engine.limit.rows, worst.rows), worst.completions
    short = replace(sampling_of(parts.recipe), max_new_tokens=_TOKENS, stop=(), stop_token_ids=())
    sizes = [min(n, rows - first) for first in range(0, rows, n)]
    try:
        await asyncio.gather(*(engine.sample(worst.prompt_ids, size, short, range(size)) for size in sizes))
        while not _has_room(parts, engine, worst) and engine.limit.halve(rows):
            pass
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise EngineError(NO_ROOM.format(f"sampling {rows} completions at once")) from error


def _has_room(parts: Parts, engine: EmbeddedEngine, worst: WorstCase) -> bool:
    """For the keys and values of full completions; an error if there is none for a single one."""
    rows = min(engine.limit.rows, worst.rows)
    size = engine.keys_and_values(worst.shape.batch(rows, -(-rows // worst.completions)))
    try:
        torch.zeros(size, dtype=torch.uint8, device=parts.policy.device).fill_(1)
    except Exception as error:
        if not is_out_of_memory(error) or engine.limit.rows == 1:
            raise
        return False
    return True


def _length(group: Group) -> int:
    return len(group.prompt_ids) + sum(len(rollout.completion.token_ids) for rollout in group.rollouts)


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
    except OSError as error:
        raise RunError(cannot_write(path, error)) from error
    except (SafetensorError, RuntimeError) as error:
        cure = "free some space, or choose another folder (run.folder)"
        raise RunError(f"cannot write {path}: {error}; {cure}") from error
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
