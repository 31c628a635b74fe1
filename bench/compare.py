"""One workload on both sides, in turn: ours, TRL, ours again; and before that, which of TRL's settings are the fastest.

TRL's two knobs do not depend on each other, so each is tried alone: how completions are generated (HF generate or
continuous batching, without learning), and how many completions its backward pass takes at once (with completions of
the lengths that ours had, without generating, on a part of the problems: each takes the same time). The whole step in
one micro-batch, as it is if nothing but the batch size is set, is tried once for its memory.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from statistics import median

from sides import MeasurementError, ours, say, trl
from workloads import Workload

WARM_UP = 1


def compare(workload: Workload, steps: int, settings: dict) -> dict:
    """Both sides, TRL as `fastest` found it."""
    say(f"{workload.name}: {workload.about}")
    first = ours(workload, steps=steps + WARM_UP)
    theirs = trl(workload, first, steps=steps + WARM_UP, **settings)
    second = ours(workload, steps=steps + WARM_UP)
    return {"workload": asdict(workload), "ours": [first, second], "trl": theirs}


def search(workload: Workload) -> dict:
    """TRL's halves of a step in every setting worth trying."""
    say(f"{workload.name}: TRL's settings")
    like = ours(workload, steps=WARM_UP + 1)
    tried = [
        attempt(workload, like, only="generate", micro_batch=workload.completions, generate=way)
        for way in ("hf", "continuous")
    ]
    part = replace(workload, problems=max(workload.problems // 4, 1))
    for size in part.micro_batches():
        tried.append(attempt(part, like_part(like, part), only="learn", micro_batch=size, generate="hf"))
    tried.append(attempt(workload, like, steps=1, only="learn", micro_batch=workload.completions, generate="hf"))
    return {"workload": asdict(workload), "tried": tried}


def like_part(result: dict, part: Workload) -> dict:
    """The first problems of each step."""
    problems, completions = slice(part.problems), slice(part.completions)
    rows = [{"drawn": row["drawn"][problems], "lengths": row["lengths"][completions]} for row in result["steps"]]
    return {"steps": rows}


def attempt(workload: Workload, like: dict, steps: int = WARM_UP + 1, **settings) -> dict:
    """One setting: seconds of the last step, or why it failed, which is for want of memory."""
    entry: dict = {**settings, "completions": workload.completions, "steps": steps}
    try:
        result = trl(workload, like, steps=steps, **settings)
    except MeasurementError as failure:
        say(f"    failed: {failure}")
        return entry | {"failed": str(failure)}
    row = result["steps"][-1]
    per_token = row["seconds"] / sum(row["lengths"])
    return entry | {"seconds": row["seconds"], "per_token": per_token, "peak_mb": result["peak_mb"]}


def fastest(tried: list[dict]) -> dict:
    """The settings of the fastest half of each kind, by the token. What had no step to warm up does not count."""
    came = [entry for entry in tried if "failed" not in entry and entry["steps"] > WARM_UP]
    generate, learn = (
        min((entry for entry in came if entry["only"] == half), key=lambda entry: entry["per_token"])
        for half in ("generate", "learn")
    )
    return {"generate": generate["generate"], "micro_batch": learn["micro_batch"]}


def whole_step_peak(tried: list[dict]) -> float | None:
    """TRL's peak with all completions of a step in one micro-batch. None: more than there was."""
    (whole,) = (entry for entry in tried if entry["only"] == "learn" and entry["steps"] == 1)
    return whole.get("peak_mb")


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
