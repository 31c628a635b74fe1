"""Programs to write, from rows in the shapes that are in use. The code rewards run what the model wrote.

    row of                    prompt             columns for the rewards
    MBPP                      text or prompt     tests = test_list, test_setup_code, solution = code
    HumanEval                 prompt             tests = test, prelude = prompt, entry_point, solution
    APPS, code contests       question           tests = {"inputs": [...], "outputs": [...]}, from input_output, inputs
                                                 and outputs, or public_tests and private_tests
    your own                  prompt             tests, and what else of these there is

`code_tests` grades tests that are asserts or define `check(candidate)`; `code_stdio` compares what a program prints.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from groupwise.errors import TaskError
from groupwise.rewards import BUILT_IN, RewardFunction, load_reward
from groupwise.tasks.dataset import dataset
from groupwise.tasks.reading import Row
from groupwise.tasks.rows import listed
from groupwise.tasks.task import Task, system_words
from groupwise.types import Problem

SYSTEM_PROMPT = "Write the program that is asked for, in Python. End with it, whole, in one ```python block."

_PROMPTS = ("prompt", "question", "text", "description")
_TAKEN = {*_PROMPTS, "test", "test_list", "inputs", "outputs", "input_output", "public_tests", "private_tests", "code"}


def code(path: str, *, folder: Path = Path(), seed: int = 0, system_prompt: str | None = None, **settings: Any) -> Task:
    """Programming problems; settings are those of `dataset`.

    Example: `code("mbpp.jsonl", hold_out=50, system_prompt="default")`
    """
    task = dataset(path, folder=folder, seed=seed, convert=to_row, **settings)
    problems = [*task.train, *task.held_out]
    solved = all(isinstance(problem.columns.get("solution"), str) for problem in problems)
    return replace(
        task,
        rewards=_rewards(problems[0]),
        is_correct=None,
        system_prompt=system_words(system_prompt, SYSTEM_PROMPT, "code"),
        demonstrations=_demonstrated if solved else None,
    )


def _rewards(problem: Problem) -> tuple[RewardFunction, ...]:
    name = "code_stdio" if isinstance(problem.columns["tests"], Mapping) else "code_tests"
    return (load_reward(name),) if name in BUILT_IN else ()


def to_row(row: Row, where: str) -> Mapping[str, Any]:
    """A row in any of these shapes, as `rows` has them."""
    prompt = next((row[name] for name in _PROMPTS if row.get(name)), None)
    if not isinstance(prompt, str):
        raise TaskError(
            f"{where} has no text in a column {', '.join(_PROMPTS)}; it has {listed(row)}: see task.columns"
        )
    tests, from_humaneval = _tests(row, where), "test" in row and "entry_point" in row
    content = prompt
    if from_humaneval:
        content = f"Complete this function:\n```python\n{prompt}\n```"
    elif isinstance(tests, list) and tests:
        # MBPP names the function nowhere but in its tests.
        content = f"{prompt}\nIt has to pass, for example: {cast('list[Any]', tests)[0]}"
    converted = {name: value for name, value in row.items() if name not in _TAKEN}
    converted |= {"prompt": [{"role": "user", "content": content}], "tests": tests}
    if from_humaneval:
        converted["prelude"] = prompt
    solution = next((row[name] for name in ("solution", "code", "canonical_solution") if row.get(name)), None)
    if isinstance(solution, str):
        converted["solution"] = prompt + solution if from_humaneval and "canonical_solution" in row else solution
    return converted


def _tests(row: Row, where: str) -> Any:
    """What the code rewards take as `tests`."""
    for name in ("tests", "test_list", "test"):
        if row.get(name):
            return row[name]
    given = row.get("input_output") or {name: row.get(name) for name in ("inputs", "outputs")}
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise TaskError(f"{where}, column input_output is no JSON: {error}") from error
    if not isinstance(given, Mapping) or not cast("Mapping[str, Any]", given).get("inputs"):
        given = _contest(row)
    pairs = cast("Mapping[str, Any]", given)
    inputs, outputs = pairs.get("inputs"), pairs.get("outputs")
    if not isinstance(inputs, list | tuple) or not isinstance(outputs, list | tuple):
        raise TaskError(
            f"{where} has no tests: a column tests, test_list or test, or inputs and outputs; it has {listed(row)}"
        )
    if len(cast("list[Any]", inputs)) != len(cast("list[Any]", outputs)):
        raise TaskError(
            f"{where} has {len(cast('list[Any]', inputs))} inputs and {len(cast('list[Any]', outputs))} outputs"
        )
    return {"inputs": list(cast("list[Any]", inputs)), "outputs": list(cast("list[Any]", outputs))}


def _contest(row: Row) -> dict[str, list[Any]]:
    """Code contests keep their tests in two columns, each `{"input": [...], "output": [...]}`."""
    together: dict[str, list[Any]] = {"inputs": [], "outputs": []}
    for name in ("public_tests", "private_tests"):
        part = cast("Mapping[str, Any]", row[name]) if isinstance(row.get(name), Mapping) else {}
        together["inputs"] += part.get("input", [])
        together["outputs"] += part.get("output", [])
    return together if together["inputs"] else {}


def _demonstrated(problem: Problem) -> str:
    return f"```python\n{problem.columns['solution'].strip()}\n```"
