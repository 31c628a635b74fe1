"""The GPU's part of the bench: one command, under 8 minutes, nothing downloaded.

    python bench/gpu.py                          # on a machine with CUDA: writes docs/measurements.{json,md}
    python bench/gpu.py --device cpu --tiny      # the same on a toy, in seconds, to see that it runs

- decode: tokens per second at 8 to 512 rows, against what the memory could feed (see `bytes_of_a_step`)
- training: the share of the device's arithmetic that an update uses (MFU)
- step: seconds of a whole step, TRL with HF generate beside it if it is installed
- schedule: the hours of 500 steps of 7 problems with 8 completions of up to 400 tokens, on 1.5 billion parameters

Shapes are Qwen2.5's, weights are random, so no completion ends before its cap. What the time is not enough for is
broken off, left out and named.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from arithmetic import Step, body_parameters, operations
from gpu_tables import devices
from groupwise import Trainer
from groupwise.engines.choice import choose_decoder
from groupwise.engines.embedded import EmbeddedEngine
from groupwise.learner.learner import Learner
from groupwise.training.loop import learner_of
from groupwise.types import Completion, Group, Problem, Rollout, Sampling
from models import random_model, tokenizer_of
from our_side import trainer_of
from results import everywhere, of_this_machine
from sides import ROOT, MeasurementError, say, trl, trl_python
from tables import write_section
from workloads import Shape, Workload

DATASHEET = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "A800": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bf16 operations per second of the tensor cores, as the makers say."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured: the same on a GPU and on the toy, but for the sizes."""

    shapes: dict[str, Shape]
    rows: tuple[int, ...]
    prompt: int
    decoded: tuple[int, int]
    """Two caps: between them there is nothing but decoding."""
    problems: int
    cap: int
    steps: int


QWEN = {
    "Qwen2.5-0.5B": Shape(896, 24, 14, 2, 4864, 151_936, context=4096),
    "Qwen2.5-1.5B": Shape(1536, 28, 12, 2, 8960, 151_936, context=4096),
}
FULL = Plan(QWEN, (8, 64, 256, 512), prompt=200, decoded=(16, 272), problems=7, cap=400, steps=3)
TINY = Plan({"tiny": Shape(32, 2, 4, 2, 64, 512)}, (8, 16), prompt=20, decoded=(4, 12), problems=2, cap=8, steps=1)


class OutOfTimeError(Exception):
    """The time for all is over."""


class Clock:
    """Seconds, once the device has done what it was told; and what is left of the time for all, at whose end whatever
    is measured is broken off."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def begin(self, minutes: float) -> None:
        """So much time from now on."""
        self._ends = time.perf_counter() + 60 * minutes
        signal.signal(signal.SIGALRM, self._break_off)
        # Again and again: what tries something out, and takes any error for an answer, takes this one, too.
        signal.setitimer(signal.ITIMER_REAL, 60 * minutes, 5.0)

    def stop(self) -> None:
        """Nothing is measured any more."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _break_off(self, number: int, frame: object) -> None:
        raise OutOfTimeError

    def seconds(self, work: Callable[[], object]) -> float:
        self._wait()
        start = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def left(self) -> float:
        return self._ends - time.perf_counter()


def device_limits(device: torch.device, clock: Clock) -> dict[str, float]:
    """Bytes per second of a copy (read and written) and bf16 operations per second of a square multiplication."""
    large = device.type == "cuda"
    source = torch.empty(2**30 if large else 2**24, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    size = 8192 if large else 512
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    copied = min(clock.seconds(lambda: target.copy_(source)) for _ in range(10))
    multiplied = min(clock.seconds(lambda: torch.mm(left, right)) for _ in range(10))
    return {"bandwidth": 2 * source.numel() / copied, "gemm": 2 * size**3 / multiplied}


def bytes_of_a_step(shape: Shape, rows: int, group: int, prompt: int, generated: float) -> float:
    """What decoding one token for every row has to read, in bf16: all weights once, the keys and values of each prompt
    once for its group, and those of each completion.

    The embedding matrix counts once, as the head: of the look-up only a few rows are read.
    """
    weights = body_parameters(shape) + shape.vocabulary * shape.hidden
    cache_per_token = 2 * shape.layers * shape.hidden // shape.heads * shape.kv_heads
    return 2 * (weights + cache_per_token * (rows // group * prompt + rows * generated))


def decode(trainer: Trainer, shape: Shape, plan: Plan, rows: int, clock: Clock, bandwidth: float) -> dict:
    """Tokens per second of `rows` completions in groups of 8, without reading the prompts."""
    group, rng = 8, random.Random(0)
    prompts = [[rng.randrange(5, shape.vocabulary) for _ in range(plan.prompt)] for _ in range(rows // group)]
    engine = EmbeddedEngine(trainer.policy, max_rows=rows)

    async def sample(cap: int) -> None:
        sampling = Sampling(max_new_tokens=cap)
        await asyncio.gather(*(engine.sample(prompt, group, sampling, range(group)) for prompt in prompts))

    few, many = plan.decoded
    asyncio.run(sample(many))  # to warm up, and to capture what is captured
    spent = clock.seconds(lambda: asyncio.run(sample(many))) - clock.seconds(lambda: asyncio.run(sample(few)))
    rate = rows * (many - few) / max(spent, 1e-9)
    needed = bytes_of_a_step(shape, rows, group, plan.prompt, (few + many) / 2)
    limit = rows * bandwidth / needed
    say(f"  decode, {rows} rows: {rate:,.0f} tokens/s, {rate / limit:.0%} of the limit")
    return {"rows": rows, "rate": rate, "limit": limit}


def learn(learner: Learner, workload: Workload, clock: Clock) -> dict:
    """Operations per second of an update on full-length completions."""
    rng = random.Random(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5, workload.shape.vocabulary) for _ in range(count))

    def rollout() -> Rollout:
        completion = Completion(tokens(workload.cap), (-12.0,) * workload.cap, "length", "")
        return Rollout(completion, reward=0.0, advantage=rng.gauss(0, 1))

    groups = [
        Group(Problem(str(i), ""), tokens(workload.prompt[0]), tuple(rollout() for _ in range(workload.group)))
        for i in range(workload.problems)
    ]
    step = Step([workload.prompt[0]] * workload.problems, [[workload.cap] * workload.group] * workload.problems)
    counted = operations(workload, step)

    def update() -> None:
        asyncio.run(learner.update(groups, sampler_is_exact=False))

    update()
    spent = min(clock.seconds(update) for _ in range(2))
    rate = (counted.learning + counted.learning_attention) / spent
    say(f"  update: {spent:.2f} s, {rate / 1e12:,.1f} TFLOP/s")
    return {"seconds": spent, "rate": rate}


def measure_shape(
    found: dict, name: str, shape: Shape, plan: Plan, device: torch.device, clock: Clock, bandwidth: float
) -> None:
    """Decode, update and whole step of one shape, in that order, on one model, into `found`."""
    say(f"{name}: {shape}")
    workload = Workload(name, "", shape, plan.problems, 8, (plan.prompt, plan.prompt), plan.cap)
    tokenizer = tokenizer_of(shape.vocabulary)
    torch.manual_seed(0)
    with torch.device(device):
        model = random_model(shape, tokenizer).to(torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        trainer, watch = trainer_of(
            workload, model, folder, steps=plan.steps + 1, dtype="bf16", device=device.type, tokenizer=tokenizer
        )
        parts = trainer.prepare()
        found["attention"] = parts.policy.attention
        found["decoder"] = getattr(choose_decoder(parts.policy), "__name__", "")
        say(f"  {found['attention']} attention, {found['decoder']}")
        for rows in plan.rows:
            if clock.left() < 60:
                say(f"  decode, {rows} rows: no time left")
                continue
            found["decode"].append(decode(trainer, shape, plan, rows, clock, bandwidth))
        if clock.left() > 60:
            found["update"] = learn(learner_of(parts), workload, clock)
        if clock.left() > 60:
            trainer.train()
            found["step"] = watch.steps.rows[1:]
            say(f"  step: {min(row['seconds'] for row in found['step']):.2f} s")
    if device.type == "cuda":
        found["peak_gb"] = torch.cuda.max_memory_allocated() / 2**30


def step_of_trl(shape: Shape, plan: Plan, like: list[dict], device: torch.device, seconds: float) -> dict:
    """The same step by TRL in a process of its own: HF generate, all of a group at once, weights in bf16."""
    workload = Workload("gpu", "", shape, plan.problems, 8, (plan.prompt, plan.prompt), plan.cap)
    result = trl(workload, {"steps": like}, steps=2, generate="hf", micro_batch=8, device=device.type, seconds=seconds)
    return {"step": result["steps"][1:]}


def measure(plan: Plan, device: torch.device, minutes: float) -> dict:
    """Everything, as one entry of the results, or as much of it as there was time for."""
    clock = Clock(device)
    limits = device_limits(device, clock)
    say(f"copy {limits['bandwidth'] / 1e9:,.0f} GB/s, bf16 multiplication {limits['gemm'] / 1e12:,.1f} TFLOP/s")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    sheet = next((rate for part, rate in DATASHEET.items() if part in name), None)
    shapes: dict[str, dict] = {shape: {"decode": []} for shape in plan.shapes}
    entry = {"device": name, **limits, "datasheet": sheet, "schedule_cap": plan.cap, "shapes": shapes}
    entry["trl"] = "no time left"
    try:
        clock.begin(minutes)
        for shape_name, shape in plan.shapes.items():
            measure_shape(shapes[shape_name], shape_name, shape, plan, device, clock, limits["bandwidth"])
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
        smallest = next(iter(plan.shapes))
        entry["trl"] = trl_beside(plan, plan.shapes[smallest], shapes[smallest], device, clock)
    except OutOfTimeError:
        say("  no time left: what runs is broken off")
    finally:
        clock.stop()
    return entry


def trl_beside(plan: Plan, shape: Shape, ours: dict, device: torch.device, clock: Clock) -> dict | str:
    """TRL's step on the smallest shape, or why there is none."""
    if trl_python() is None:
        return "TRL is not installed"
    if "step" not in ours or clock.left() < 90:
        return "no time left"
    try:
        return step_of_trl(shape, plan, ours["step"], device, clock.left() - 5)
    except MeasurementError as error:
        return f"failed: {error}"


def main():
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # of several, transformers' trainer would take all at once
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="toy sizes")
    parser.add_argument("--minutes", type=float, default=7.5, help="all is over after this long")
    parser.add_argument("--out", type=Path, help="folder for the results; docs on a GPU, else build/bench")
    arguments = parser.parse_args()
    there = arguments.device == "cpu" or torch.cuda.is_available()
    if not there or (arguments.device == "cpu" and not arguments.tiny):
        sys.exit("no CUDA device: `--device cpu --tiny` shows that it runs, and nothing else makes sense here")
    device = torch.device(arguments.device)
    entry = measure(TINY if arguments.tiny else FULL, device, arguments.minutes)
    folder = arguments.out or (ROOT / "docs" if device.type == "cuda" else ROOT / "build" / "bench")
    folder.mkdir(parents=True, exist_ok=True)
    results = of_this_machine(folder)
    results.put("gpu", entry["device"], entry, shlex.join(["python", "bench/gpu.py", *sys.argv[1:]]))
    known = [item for machine in everywhere(folder) for item in machine.part("gpu").items()]
    text = devices(dict(sorted(known, key=lambda item: item[1]["stamp"]["date"])))
    print(text)
    page = folder / "measurements.md"
    if page.is_file():
        write_section(page, "gpu", text)


if __name__ == "__main__":
    main()
