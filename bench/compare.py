"""One workload on both sides, in turn: ours, TRL in several settings, TRL at the fastest of them, ours again.

TRL's two knobs do not depend on each other, so each is tried alone: how completions are generated (HF generate or
continuous batching, without learning), and how many completions its backward pass takes at once (with completions of
the lengths that ours had, without generating). The whole step in one micro-batch, which a user gets who sets nothing
else, is among them; its memory is reported beside that of the fastest.
"""

from __future__ import annotations

from dataclasses import asdict
from statistics import median

from sides import MeasurementError, ours, say, trl
from workloads import Workload

WARM_UP = 1


def compare(workload: Workload, steps: int, tried: list[dict] | None = None) -> dict:
    """All that was measured, in the order in which it was. `tried` are attempts at TRL's settings that were made on
    the same shape before."""
    say(f"{workload.name}: {workload.about}")
    first = ours(workload, steps=steps + WARM_UP)
    tried = tried or attempts(workload, first)
    theirs = trl(workload, first, steps=steps + WARM_UP, **fastest(tried))
    second = ours(workload, steps=steps + WARM_UP)
    return {"workload": asdict(workload), "ours": [first, second], "trl": theirs, "tried": tried}


def attempts(workload: Workload, like: dict) -> list[dict]:
    """TRL's halves of a step in every setting worth trying."""
    whole = workload.completions
    found = [attempt(workload, like, only="generate", micro_batch=whole, generate=way) for way in ("hf", "continuous")]
    sizes = workload.micro_batches()
    return found + [attempt(workload, like, only="learn", micro_batch=size, generate="hf") for size in sizes]


def fastest(tried: list[dict]) -> dict:
    """The settings of the fastest half of each kind. Sampling goes by the token, for its lengths fall by chance."""
    came = [entry for entry in tried if "failed" not in entry]
    generate = min((entry for entry in came if entry["only"] == "generate"), key=lambda entry: entry["per_token"])
    learn = min((entry for entry in came if entry["only"] == "learn"), key=lambda entry: entry["seconds"])
    return {"generate": generate["generate"], "micro_batch": learn["micro_batch"]}


def attempt(workload: Workload, like: dict, **settings) -> dict:
    """One setting: a step to warm up and one that counts, or why it failed, which is for want of memory."""
    entry: dict = {**settings}
    try:
        result = trl(workload, like, steps=WARM_UP + 1, **settings)
    except MeasurementError as failure:
        say(f"    failed: {failure}")
        return entry | {"failed": str(failure)}
    row = result["steps"][-1]
    per_token = row["seconds"] / sum(row["lengths"])
    return entry | {"seconds": row["seconds"], "per_token": per_token, "peak_mb": result["peak_mb"]}


def timed(result: dict) -> list[dict]:
    """The steps that count."""
    return result["steps"][WARM_UP:]


def seconds(results: list[dict]) -> float:
    """Median seconds of a step."""
    return median(row["seconds"] for result in results for row in timed(result))


def per_token(results: list[dict]) -> float:
    """Seconds per generated token."""
    rows = [row for result in results for row in timed(result)]
    return sum(row["seconds"] for row in rows) / sum(sum(row["lengths"]) for row in rows)


def peak(results: list[dict]) -> float:
    """The most megabytes of any of the processes."""
    return max(result["peak_mb"] for result in results)
