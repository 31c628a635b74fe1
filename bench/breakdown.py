"""Where the time of a step goes: the same step once by the clock and once under torch's profiler.

    python bench/breakdown.py W1 MODEL_FOLDER OUT.json

The profiler slows down everything but the large operations themselves, so what is "other" is taken from the step that
it did not watch: the clock's seconds less those of the large operations. It does not see into a decoding step that is
one call of compiled code: there the clock is asked again, call by call. With it comes how much arithmetic of the floor
(`arithmetic.py`) each of them had to do, and how many rows the decoding steps had.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from arithmetic import Step, by_part, decoding_rows
from groupwise.engines.embedded import EmbeddedEngine
from groupwise.engines.native import NativeDecoder
from groupwise.engines.rows import Rows
from groupwise.rewards import TrainerState
from groupwise.training.loop import learner_of, rollouts_of
from groupwise.training.step import with_advantages
from our_side import trainer_of
from workloads import workload_of

GEMM = (
    *("aten::mm", "aten::addmm", "aten::_addmm_activation", "mkldnn::_linear_pointwise", "aten::mkldnn_linear"),
    "_Linear",
)
ATTENTION = ("aten::bmm", "aten::baddbmm", "scaled_dot_product", "flash_attention", "_Attention")
PASSES = ("_RmsNorm", "_Gated", "_Rotated")
CALLS = {
    "reading prompts": (NativeDecoder, "admit"),
    "compiled step": (NativeDecoder, "step"),
    "drawing": (Rows, "draw"),
}


def kind(operation: str) -> str:
    """GEMM, attention (its multiplications, and what torch does in one piece), passes over activations, or other."""
    if operation.startswith(GEMM):
        return "GEMM"
    if any(part in operation for part in ATTENTION):
        return "attention"
    return "norms, gates, rotation" if operation.startswith(PASSES) else "other"


@contextmanager
def timed(calls: dict[str, tuple[type, str]]) -> Generator[dict[str, float]]:
    """Inside, the seconds of these methods add up."""
    seconds: dict[str, float] = {}
    before = {name: vars(owner)[method] for name, (owner, method) in calls.items()}

    def clocked(name):
        def call(*args, **settings):
            start = time.perf_counter()
            try:
                return before[name](*args, **settings)
            finally:
                seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start

        return call

    for name, (owner, method) in calls.items():
        setattr(owner, method, clocked(name))
    try:
        yield seconds
    finally:
        for name, (owner, method) in calls.items():
            setattr(owner, method, before[name])


def watched(work) -> dict[str, float]:
    """Seconds of the work's operations by kind, children not counted."""
    with profile(activities=[ProfilerActivity.CPU]) as watching:
        work()
    seconds: dict[str, float] = {}
    for event in watching.key_averages():
        seconds[kind(event.key)] = seconds.get(kind(event.key), 0.0) + event.self_cpu_time_total / 1e6
    return seconds


def by_clock(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def halves_of_a_step(parts):
    """Sampling and learning as two calls that do the same whenever they are called: same seeds, same tokens."""
    engine = EmbeddedEngine(parts.policy, parts.recipe.engine.max_rows)
    rollouts, learner = rollouts_of(parts, engine), learner_of(parts)
    problems = parts.train.problems[: parts.recipe.train.prompts_per_step]
    groups = []

    def sample():
        groups[:] = asyncio.run(rollouts.sample(problems, 1))

    def learn():
        graded = asyncio.run(rollouts.grade(groups, TrainerState()))
        asyncio.run(learner.update(with_advantages(graded, parts.algorithm), sampler_is_exact=engine.exact))

    def step() -> Step:
        return Step(
            [len(group.prompt_ids) for group in groups],
            [[len(rollout.completion.token_ids) for rollout in group.rollouts] for group in groups],
        )

    return sample, learn, step


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload")
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtype", default="fp32")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trainer, _ = trainer_of(
            workload_of(arguments.workload), arguments.model, folder, steps=100, dtype=arguments.dtype
        )
        *both, step = halves_of_a_step(trainer.prepare())
        halves = dict(zip(("decode", "learn"), both, strict=True))
        for work in halves.values():
            work()  # to warm up
        result: dict = {}
        for name, work in halves.items():
            with timed(CALLS) as called:
                clock = by_clock(work)
            parts = called if "compiled step" in called else watched(work)
            large = {part: seconds for part, seconds in parts.items() if part != "other"}
            result[name] = {**large, "other": max(clock - sum(large.values()), 0.0), "clock": clock}
        result["operations"] = by_part(workload_of(arguments.workload), step())
        result["rows"] = decoding_rows(step())
    result["threads"] = torch.get_num_threads()
    arguments.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
