"""What trunk and branch buys: one GRPO step, packed against plain padded batches, each in a process of its own.

    python bench/trunk_and_branch.py                                  # 8 prompts of 200 tokens, G = 8, up to 256 tokens
    python bench/trunk_and_branch.py --prompt 1000 --group 16 --cap 64

A model of 3 million random weights, so lengths fall by chance alone. Prints seconds per step (median after one warm-up
step) and the peak memory of the process. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WAYS = ("trunk_and_branch", "plain")


async def step(policy, learner, prompts, group, cap):
    from groupwise.engines.embedded import EmbeddedEngine
    from groupwise.types import Group, Problem, Rollout, Sampling

    engine = EmbeddedEngine(policy)
    start = time.perf_counter()
    calls = [engine.sample(p, group, Sampling(max_new_tokens=cap), range(i, i + group)) for i, p in enumerate(prompts)]
    answers = await asyncio.gather(*calls)
    sampled = time.perf_counter()
    groups = [
        Group(
            Problem(str(i), ""), tuple(prompt), tuple(Rollout(c, reward=0.0, advantage=random.gauss(0, 1)) for c in cs)
        )
        for i, (prompt, cs) in enumerate(zip(prompts, answers, strict=True))
    ]
    await learner.update(groups, sampler_is_exact=True)
    tokens = sum(len(c.token_ids) for cs in answers for c in cs)
    return sampled - start, time.perf_counter() - sampled, tokens


def measure(way, arguments):
    from groupwise.config.presets import PRESETS
    from groupwise.config.sections import (
        AlgorithmSection,
        LearnerSection,
        ModelSection,
        OptimizerSection,
        ReferenceSection,
    )
    from groupwise.learner.algorithm import Algorithm
    from groupwise.learner.learner import Learner
    from groupwise.models.load import load_policy
    from groupwise.models.small import write_small_model

    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        write_small_model(Path(folder), hidden=256, layers=4, context=2048)
        policy = load_policy(ModelSection(id=folder, attention=way))
    learner = Learner(
        policy,
        Algorithm.of(AlgorithmSection(**PRESETS["bnpo"]), arguments.cap),
        LearnerSection(),
        OptimizerSection(lr=1e-5),
        reference=ReferenceSection(),
        temperature=1.0,
        total_steps=100,
    )
    prompts = [[random.randrange(5, 100) for _ in range(arguments.prompt)] for _ in range(arguments.prompts)]
    steps = [
        asyncio.run(step(policy, learner, prompts, arguments.group, arguments.cap)) for _ in range(arguments.steps + 1)
    ][1:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sample, learn, tokens = (statistics.median(column) for column in zip(*steps, strict=True))
    return {"way": way, "sample": sample, "learn": learn, "tokens": tokens, "megabytes": peak}


def main():
    parser = argparse.ArgumentParser()
    for name, default in (("prompts", 8), ("prompt", 200), ("group", 8), ("cap", 256), ("steps", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--way", choices=WAYS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way, arguments)))
        return
    print(f"{'':18}{'s/step':>8}{'sample':>8}{'learn':>8}{'tokens':>8}{'peak MB':>9}")
    for way in WAYS:
        line = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--way", way], capture_output=True, text=True, check=True
        ).stdout.splitlines()[-1]
        row = json.loads(line)
        total = row["sample"] + row["learn"]
        print(f"{way:18}{total:8.2f}{row['sample']:8.2f}{row['learn']:8.2f}{row['tokens']:8.0f}{row['megabytes']:9.0f}")


if __name__ == "__main__":
    main()
