"""GSM8K: grade-school word problems with a worked rationale (Cobbe et al. 2021, arXiv 2110.14168).

A row of the data set                            becomes
    question  "Weng earns $12 an hour ..."           prompt     one user message
    answer    "... = $<<0.2*50=10>>10.\\n#### 10"    answer     "10", thousands commas removed
                                                     rationale  what stands before the ####, as it is

Prompts are conversations, so that reward functions written for chat data find `completions[i][0]["content"]`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from groupwise.errors import TaskError
from groupwise.rewards import as_reward, correctness, hash_answer, tag_count
from groupwise.tasks.reading import Row, Source, read_split
from groupwise.tasks.rows import states_answer, take_out, to_problems
from groupwise.tasks.task import Task, system_words
from groupwise.types import Problem

SYSTEM_PROMPT = """Think the problem through, then answer. Keep to this layout:
<reasoning>
your steps, one per line
</reasoning>
<answer>
the final number, without unit
</answer>"""

_CALCULATOR_MARK = re.compile(r"<<[^<>]*>>")


def gsm8k(
    *,
    path: str = "openai/gsm8k",
    train_split: str = "train",
    eval_split: str = "test",
    limit: int | None = None,
    hold_out: int = 0,
    system_prompt: str | None = None,
    folder: Path = Path(),
    seed: int = 0,
) -> Task:
    """Word problems from the hub, or from a folder with `train.jsonl` and `test.jsonl` (or parquet).

    `hold_out` draws that many problems out of the training split by `seed` and evaluates on them instead of on
    `eval_split`; `limit` then keeps the first so many to train on.

    Example: `gsm8k(path="data/gsm8k", system_prompt="default", hold_out=50)`
    """
    source = Source(path, folder, name="main")
    train = to_problems(_converted(source, train_split), f"gsm8k/{train_split}")
    if hold_out:
        train, held_out = take_out(train, hold_out, seed)
    else:
        held_out = to_problems(_converted(source, eval_split), f"gsm8k/{eval_split}")
    return Task(
        name="gsm8k",
        train=train[:limit],
        held_out=held_out,
        rewards=(as_reward(correctness), as_reward(tag_count)),
        is_correct=states_answer,
        system_prompt=system_words(system_prompt, SYSTEM_PROMPT, "gsm8k"),
        demonstrations=demonstrate,
    )


def demonstrate(problem: Problem) -> str:
    """The data set's own rationale in the tags, without its calculator marks: `<<48/2=24>>24` becomes `24`."""
    rationale = _CALCULATOR_MARK.sub("", problem.columns["rationale"])
    return f"<reasoning>\n{rationale}\n</reasoning>\n<answer>\n{problem.columns['answer']}\n</answer>"


def _converted(source: Source, split: str) -> list[dict[str, Any]]:
    return [
        to_row(row, f"{source.path}, split {split!r}, row {index}")
        for index, row in enumerate(read_split(source, split))
    ]


def to_row(row: Row, where: str) -> dict[str, Any]:
    """The table above."""
    for column in ("question", "answer"):
        if not isinstance(row.get(column), str):
            raise TaskError(f"{where} has no text in the column {column!r}; it has {', '.join(row) or 'no columns'}")
    gold = hash_answer(row["answer"])
    if gold is None:
        raise TaskError(f"{where}: the answer does not end in '#### ' and a number: {ascii(row['answer'])[-80:]}")
    return {
        "prompt": [{"role": "user", "content": row["question"]}],
        "question": row["question"],
        "answer": gold.replace(",", ""),
        "rationale": row["answer"].rpartition("####")[0].strip(),
    }
