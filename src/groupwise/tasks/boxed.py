r"""Mathematics as in MATH (Hendrycks et al. 2021, arXiv 2103.03874): the gold answer stands in a \boxed{}.

A row of the data set                                    becomes
    problem   "What is $\sqrt{144}$?"                    prompt    one user message
    solution  "... so the answer is $\boxed{12}$."       answer    "12"
    answer    "12", in data sets that have it apart      answer    as it is

All other columns (level, subject, ...) stay as they are, for rewards and for `task.columns`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from groupwise.errors import TaskError
from groupwise.rewards import as_reward, boxed_answer, correctness, is_right
from groupwise.tasks.dataset import dataset
from groupwise.tasks.reading import Row
from groupwise.tasks.rows import listed
from groupwise.tasks.task import Task, system_words
from groupwise.types import Problem

SYSTEM_PROMPT = r"Reason step by step, and put your final answer within \boxed{}."


def boxed(
    path: str, *, folder: Path = Path(), seed: int = 0, system_prompt: str | None = None, **settings: Any
) -> Task:
    r"""Problems whose answers are compared by what their last \boxed{} holds. Settings are those of `dataset`.

    Example: `boxed("HuggingFaceH4/MATH-500", train_split="test", hold_out=100, system_prompt="default")`
    """
    task = dataset(path, folder=folder, seed=seed, convert=to_row, **settings)
    return replace(
        task,
        rewards=(as_reward(correctness, settings={"extract": "boxed", "exact": 1.0, "numeric": 1.0}),),
        is_correct=_is_correct,
        system_prompt=system_words(system_prompt, SYSTEM_PROMPT, "boxed"),
        demonstrations=_demonstrated,
    )


def to_row(row: Row, where: str) -> Mapping[str, Any]:
    """A row of MATH and its like, as `rows` has them."""
    question = next((row[name] for name in ("prompt", "problem", "question") if name in row), None)
    if not isinstance(question, str):
        raise TaskError(
            f"{where} has no text in a column prompt, problem or question; it has {listed(row)}: name it, for example "
            'with task.columns = {prompt = "body"}'
        )
    solution, answer = row.get("solution"), row.get("answer")
    gold = boxed_answer(solution) if isinstance(solution, str) else None
    gold = str(answer) if answer is not None else gold
    if gold is None:
        shown = "no column answer or solution" if solution is None else f"no \\boxed{{}} in {ascii(solution)[-60:]}"
        raise TaskError(f"{where}: {shown}, so there is nothing to compare with: remove the row")
    others = {name: value for name, value in row.items() if name not in ("prompt", "problem", "question")}
    return {**others, "prompt": [{"role": "user", "content": question}], "answer": boxed_answer(gold) or gold}


def _is_correct(text: str, columns: Mapping[str, Any]) -> bool:
    found = boxed_answer(text)
    return found is not None and is_right(f"\\boxed{{{found}}}", columns["answer"])


def _demonstrated(problem: Problem) -> str:
    """The data set's own solution; where it states nothing in a box, the answer alone."""
    solution = problem.columns.get("solution")
    told = isinstance(solution, str) and boxed_answer(solution) == problem.columns["answer"]
    return str(solution) if told else f"\\boxed{{{problem.columns['answer']}}}"
