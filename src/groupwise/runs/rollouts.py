"""`rollouts/000041.parquet`: every rollout of a step, one row each, group by group in branch order.

    write_rollouts(path, step=41, groups=groups, extra={"parsed": ["4", None, ...]})
    read_rollouts(path)[0].reward_parts        # {"correctness": 2.0, "format": None}

The columns are the same in every file of every run: reward parts and extra columns are maps, so that a step in which a
function graded nothing, or a reward that logs more, changes no schema and `rollouts/*.parquet` reads as one table.
Token ids and logprobs are exact (logprobs are fp32 by definition). Texts are for people and queries: a lone surrogate,
which UTF-8 cannot hold, is spelled out as `\\ud800`; NUL and all else is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from groupwise.runs.files import to_json
from groupwise.runs.parquet import Kind, read_table, write_table
from groupwise.runs.redaction import redact_text, redacted
from groupwise.runs.text import well_formed
from groupwise.types import Group, Prompt

_KINDS: Mapping[str, Kind] = {
    "step": "integer",
    "group": "integer",
    "branch": "integer",
    "problem_id": "text",
    "prompt": "text",
    "columns": "text",
    "prompt_ids": "integers",
    "text": "text",
    "token_ids": "integers",
    "logprobs": "numbers",
    "finish_reason": "text",
    "reward_parts": "numbers by name",
    "reward": "number",
    "advantage": "number",
    "outcome": "text",
    "why": "text",
    "extra": "texts by name",
}


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """One rollout as it is stored. `group` and `branch` count from 0 within the step."""

    step: int
    group: int
    branch: int
    problem_id: str
    prompt: str
    """The text; a conversation as JSON."""
    columns: Mapping[str, Any]
    """The problem's columns, as far as JSON can hold them (other values as their `str()`)."""
    prompt_ids: tuple[int, ...]
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: str
    reward_parts: Mapping[str, float | None]
    reward: float | None
    advantage: float
    extra: Mapping[str, Any]
    """What reward functions logged beside the reward (`log_extra`); stored as JSON."""
    outcome: str = "scored"
    """`scored`, `wrong` (the answer ran into a limit), `unknown` (our machinery failed) or `ungraded`."""
    why: str = ""
    """Which limit it was, or what failed."""


def write_rollouts(
    path: Path, step: int, groups: Sequence[Group], extra: Mapping[str, Sequence[Any]] | None = None
) -> None:
    """Write the rollouts of a step. `extra` holds one value per rollout under each name, groups in order."""
    extra = extra or {}
    count = sum(len(group.rollouts) for group in groups)
    for name, values in extra.items():
        assert len(values) == count, f"extra column {name!r} has {len(values)} values for {count} rollouts"
    rows = list(_rows(step, groups, extra))
    write_table(path, _KINDS, {name: [row[name] for row in rows] for name in _KINDS})


def read_rollouts(path: Path) -> list[RolloutRow]:
    """The rollouts of a step, in the order they were written."""
    rows = read_table(path)
    for row in rows:
        row["columns"] = json.loads(row["columns"])
        row["extra"] = {name: json.loads(value) for name, value in row["extra"].items()}
        for name in ("prompt_ids", "token_ids", "logprobs"):
            row[name] = tuple(row[name])
    names = [field.name for field in fields(RolloutRow)]
    return [RolloutRow(**{name: row[name] for name in names if name in row}) for row in rows]


def prompt_text(prompt: Prompt) -> str:
    """A prompt as one storable text: itself, or the conversation as JSON."""
    return well_formed(prompt) if isinstance(prompt, str) else json_text(prompt)


def json_text(value: Any) -> str:
    """JSON of any value, fit for a column of texts; lone surrogates become JSON escapes."""
    return well_formed(to_json(value))


def _without_secrets(value: Any) -> str:
    """What a reward function logged, as JSON: it may have logged its environment, or what a server answered."""
    text = json_text(value)
    # Once over the whole; piece by piece, which keeps it JSON, only where there is something to hide.
    return text if redact_text(text) == text else json_text(redacted(value))


def _rows(step: int, groups: Sequence[Group], extra: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    index = 0
    for number, group in enumerate(groups):
        of_group = {
            "step": step,
            "group": number,
            "problem_id": well_formed(group.problem.id),
            "prompt": prompt_text(group.problem.prompt),
            "columns": json_text(group.problem.columns),
            "prompt_ids": group.prompt_ids,
        }
        for branch, rollout in enumerate(group.rollouts):
            yield of_group | {
                "branch": branch,
                "text": well_formed(rollout.completion.text),
                "token_ids": rollout.completion.token_ids,
                "logprobs": rollout.completion.logprobs,
                "finish_reason": rollout.completion.finish_reason,
                "reward_parts": {well_formed(name): value for name, value in rollout.reward_parts.items()},
                "reward": rollout.reward,
                "advantage": rollout.advantage,
                "outcome": rollout.outcome,
                "why": well_formed(redact_text(rollout.why)),
                "extra": {well_formed(name): _without_secrets(values[index]) for name, values in extra.items()},
            }
            index += 1
