"""What `groupwise check` says of memory, disk, time, and of what the base model can do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from groupwise.cli.findings import Finding
from groupwise.cli.machine_checks import gigabytes

if TYPE_CHECKING:
    from groupwise.training.build import Parts

_BYTES_A_TOKEN = 14
"""Of a rollout in parquet: an id, a logprob and its text, compressed."""
_NEARLY = 0.9
_WORDS = {
    "process": "Python and libraries",
    "gaps between them": "gaps in the heap",
    "decoder": "the sampler's weights",
    "logits of a token": "logits of the next token",
}
"""Parts of the memory plan in the words of who has not read it."""


def memory(parts: Parts) -> Iterator[Finding]:
    """The plan, and whether the machine has what it needs."""
    from groupwise.training.plan import memory_plan

    plan = memory_plan(parts)
    shape = plan.shape
    held = "".join(f"{phase:<10}{_shown(parts)}\n" for phase, parts in plan.phases().items())
    text = (
        f"{gigabytes(plan.peak)} of {gigabytes(plan.available)} at the peak: always and the larger other\n{held}"
        f"(prompts of {shape.prompt:,} tokens, completions of {shape.completion:,}, {shape.tokens:,} in a micro-batch)"
    )
    values = {"peak": plan.peak, "available": plan.available, "parts": dict(plan.parts)}
    cure = (
        "the cheapest first: lower learner.token_budget (same gradient), learner.logprob_chunk or engine.max_rows; "
        "model.gradient_checkpointing = true; add [lora]; take a smaller model.id"
    )
    if not plan.fits:
        yield Finding("memory", "error", text, cure, values)
    elif plan.peak > _NEARLY * plan.available:
        yield Finding("memory", "warning", text, cure, values)
    else:
        yield Finding("memory", "ok", text, values=values)


def _shown(parts: Mapping[str, int]) -> str:
    shown = [f"{_WORDS.get(name, name)} {gigabytes(size)}" for name, size in parts.items() if size >= 1 << 20]
    return " + ".join(shown) or "less than 1 MB"


def disk(parts: Parts) -> Iterator[Finding]:
    """What the run will write, and whether there is room."""
    recipe = parts.recipe
    model = sum(p.numel() * p.element_size() for p in parts.policy.model.parameters())
    per_step = recipe.train.prompts_per_step * recipe.train.group_size * recipe.sampling.max_new_tokens * _BYTES_A_TOKEN
    need = model + per_step * recipe.train.steps
    folder = Path(recipe.run.folder).expanduser().absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    text = (
        f"at most {gigabytes(need)} of {gigabytes(free)} free in {folder}: the model {gigabytes(model)}, rollouts up "
        f"to {gigabytes(per_step * recipe.train.steps)}"
    )
    values = {"need": need, "free": free}
    if free < need:
        yield Finding("disk", "error", text, "free some space, or set run.folder", values)
    else:
        yield Finding("disk", "ok", text, values=values)


def baseline_and_time(parts: Parts, seconds: float) -> Iterator[Finding]:
    """A step, timed; and what its groups say. The policy is another one afterwards."""
    from groupwise.cli.status_line import duration
    from groupwise.engines.embedded import EmbeddedEngine
    from groupwise.errors import GroupwiseError
    from groupwise.training.calibrate import calibrate
    from groupwise.training.loop import learner_of, rollouts_of
    from groupwise.training.trainer import run_to_end

    engine = EmbeddedEngine(parts.policy, parts.recipe.engine.max_rows)
    try:
        rollouts = rollouts_of(parts, engine)
        found = run_to_end(calibrate(parts, engine, learner_of(parts), rollouts, most_seconds=seconds))
    except GroupwiseError as error:
        yield Finding("step", "error", str(error), "what stops one step would stop the run")
        return
    steps, wanted = parts.recipe.train.steps, parts.recipe.train.prompts_per_step
    scaled = "" if found.problems == wanted else f", scaled from {found.problems} of its {wanted} problems"
    text = (
        f"{found.step_seconds:.1f} s a step{scaled} ({found.sample_seconds:.1f} s of it sampling and grading); "
        f"{steps:,} steps and the evaluations about {duration(found.total_seconds)}"
    )
    yield Finding("time", "ok", text, values={"step": found.step_seconds, "total": found.total_seconds})
    verdict, size = found.verdict, parts.recipe.train.group_size
    passes = "" if found.pass_1 is None else f"pass@1 {found.pass_1}, pass@{size} {found.pass_group}; "
    values = {"signal": found.signal, "reward": found.reward, "verdict": verdict.word}
    values |= (
        {}
        if found.pass_1 is None or found.pass_group is None
        else {
            "pass@1": found.pass_1.value,
            f"pass@{size}": found.pass_group.value,
        }
    )
    text = f"{passes}reward {found.reward:.3g}; {verdict.why} -> {verdict.word}"
    yield Finding("baseline", "ok" if verdict.word == "learnable" else "warning", text, values=values)
