"""Whether two runs are the same run: everything that is written down, except when it was.

differences(RunFolder.open(a), RunFolder.open(b))     [], or ["metrics of step 7: reward 0.25 and 0.5", ...]
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from groupwise.runs.checkpoints.manifest import digest_of_file
from groupwise.runs.folder import RunFolder

TIMES = ("step_seconds", "tokens_per_second", "seconds/")
"""Metrics that begin so are about the clock."""


def differences(one: RunFolder, other: RunFolder) -> list[str]:
    """What differs, in words: weights and all other state, metrics, evaluations, rollouts."""
    return [*_rows(one, other), *_rollouts(one, other), *_states(one, other)]


def _rows(one: RunFolder, other: RunFolder) -> Iterator[str]:
    tables = [(run.metrics.read(), run.evaluations()) for run in (one, other)]
    for kind, ours, theirs in zip(("metrics", "evaluation"), *tables, strict=True):
        if len(ours) != len(theirs):
            yield f"{kind}: {len(ours)} rows and {len(theirs)}"
        for row, row_there in zip(ours, theirs, strict=False):
            values, there = _timeless(row), _timeless(row_there)
            for name in values.keys() | there.keys():
                if values.get(name) != there.get(name):
                    yield f"{kind} of step {row.get('step')}: {name} {values.get(name)} and {there.get(name)}"


def _rollouts(one: RunFolder, other: RunFolder) -> Iterator[str]:
    steps = one.rollout_steps()
    if steps != other.rollout_steps():
        yield f"rollouts: of steps {steps} and {other.rollout_steps()}"
        return
    for step in steps:
        if one.rollouts(step) != other.rollouts(step):
            yield f"rollouts of step {step}"


def _states(one: RunFolder, other: RunFolder) -> Iterator[str]:
    ours, theirs = _state(one), _state(other)
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            yield f"{name} of the last checkpoint"


def _state(run: RunFolder) -> dict[str, Any]:
    """By name: the digest of each file with tensors, and the plain values."""
    checkpoint = run.checkpoints.newest().checkpoint
    if checkpoint is None:
        return {}
    plain: dict[str, Any] = json.loads((checkpoint.path / "state.json").read_bytes())
    plain["run"] = {name: value for name, value in plain["run"].items() if name != "seconds"}
    plain["facts"] = {name: value for name, value in plain["facts"].items() if name != "recipe"}
    return {**{path.name: digest_of_file(path) for path in _tensors(checkpoint.path)}, **plain}


def _tensors(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def _timeless(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in row.items() if name not in ("time", "answers") and not name.startswith(TIMES)
    }
