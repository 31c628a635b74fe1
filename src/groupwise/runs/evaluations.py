"""`evals/000050.parquet`: every answer of an evaluation, so that no score has to be believed.

    write_answers(path, step=50, answers=[EvaluatedAnswer(problem, completion, correct=True)])
    read_answers(path)[0].correct      # True

Greedy answers and sampled ones (for pass@k) share a file; `greedy` tells them apart. Texts are stored as in
`rollouts.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from groupwise.runs.parquet import Kind, read_table, write_table
from groupwise.runs.rollouts import json_text, prompt_text
from groupwise.runs.text import well_formed
from groupwise.types import Completion, Problem

_KINDS: Mapping[str, Kind] = {
    "step": "integer",
    "problem_id": "text",
    "prompt": "text",
    "columns": "text",
    "greedy": "truth",
    "branch": "integer",
    "correct": "truth",
    "text": "text",
    "token_ids": "integers",
    "logprobs": "numbers",
    "finish_reason": "text",
}


@dataclass(frozen=True, slots=True)
class EvaluatedAnswer:
    """What the policy answered to a held-out problem and whether that is right. `branch` counts sampled answers."""

    problem: Problem
    completion: Completion
    correct: bool
    greedy: bool = True
    branch: int = 0


def write_answers(path: Path, step: int, answers: Sequence[EvaluatedAnswer]) -> None:
    """Write all answers of one evaluation."""
    columns = {
        "step": [step for _ in answers],
        "problem_id": [well_formed(answer.problem.id) for answer in answers],
        "prompt": [prompt_text(answer.problem.prompt) for answer in answers],
        "columns": [json_text(answer.problem.columns) for answer in answers],
        "greedy": [answer.greedy for answer in answers],
        "branch": [answer.branch for answer in answers],
        "correct": [answer.correct for answer in answers],
        "text": [well_formed(answer.completion.text) for answer in answers],
        "token_ids": [answer.completion.token_ids for answer in answers],
        "logprobs": [answer.completion.logprobs for answer in answers],
        "finish_reason": [answer.completion.finish_reason for answer in answers],
    }
    write_table(path, _KINDS, columns)


def read_answers(path: Path) -> list[EvaluatedAnswer]:
    """The answers of an evaluation. A conversation comes back as its JSON text, other prompts as they were."""
    return [
        EvaluatedAnswer(
            problem=Problem(row["problem_id"], row["prompt"], json.loads(row["columns"])),
            completion=Completion(tuple(row["token_ids"]), tuple(row["logprobs"]), row["finish_reason"], row["text"]),
            correct=row["correct"],
            greedy=row["greedy"],
            branch=row["branch"],
        )
        for row in read_table(path)
    ]
