"""`groupwise init`: a commented recipe and a reward function, ready to train and to be changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from groupwise.errors import RunError

Kind: TypeAlias = Literal["arithmetic", "gsm8k", "dataset"]

MODEL = '"Qwen/Qwen2.5-0.5B-Instruct"'

COMMON = {
    "model.id": MODEL,
    "train.steps": "200",
    "train.prompts_per_step": "8",
    "train.group_size": "8",
    "optimizer.lr": "1e-6",
    "evaluation.every": "50",
    "evaluation.problems": "128",
}

CHOSEN: Mapping[Kind, Mapping[str, str]] = {
    "arithmetic": {
        "task.kind": '"arithmetic"',
        "task.digits": "3",
        "task.system_prompt": '"default"',
        "sampling.max_new_tokens": "128",
        "run.name": '"arithmetic"',
    },
    "gsm8k": {
        "task.kind": '"gsm8k"',
        "task.path": '"openai/gsm8k"',
        "task.system_prompt": '"default"',
        "sampling.max_new_tokens": "512",
        "run.name": '"gsm8k"',
    },
    "dataset": {
        "task.kind": '"dataset"',
        "task.path": '"problems.jsonl"',
        "task.hold_out": "4",
        "task.system_prompt": '"Think it through in a sentence or two, then write <answer>the result</answer>."',
        "train.prompts_per_step": "4",
        "sampling.max_new_tokens": "256",
        "run.name": '"dataset"',
    },
}
"""The settings that matter most for each kind of task, as TOML."""

REWARDS: Sequence[Mapping[str, str]] = (
    {"function": '"correctness"'},
    {"function": '"reward.py:near_the_end"', "weight": "0.5"},
)

REWARD = '''\
"""Rewards of this recipe. They are called as TRL calls them, so one that was written for TRL runs here unchanged."""


def near_the_end(completions, answer, **columns):
    """1 where the right answer is in the last line, whatever is around it; 0 elsewhere.

    completions  the answers of the model: texts, or conversations of one message where the prompts are conversations
    answer       a column of the task; every column comes by its name, a value for each completion
    columns      all the rest: prompts, completion_ids, finish_reasons, and columns that this function does not use

    Returns a number for each completion, in order, or None for one that is not to be graded.
    """
    rewards = []
    for completion, gold in zip(completions, answer):
        text = completion if isinstance(completion, str) else completion[0]["content"]
        lines = text.strip().splitlines() or [""]
        rewards.append(1.0 if str(gold) in lines[-1] else 0.0)
    return rewards
'''

PROBLEMS = "".join(
    f'{{"prompt": "A box holds {a} {what}. How many {what} are in {b} boxes?", "answer": "{a * b}"}}\n'
    for what in ("eggs", "screws", "books", "bottles", "pencils", "candles")
    for a, b in ((6, 4), (12, 7), (24, 3))
)
"""Rows to begin with, so that the recipe of a data set trains before there are any of one's own."""


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write; made if it is not there.")] = Path(),
    task: Annotated[Kind, typer.Option(help="What to train on.")] = "gsm8k",
) -> None:
    """Write recipe.toml, with every setting explained, and reward.py, with a reward function to change.

    dataset stands for rows of your own; a small problems.jsonl is written as an example of them.
    """
    from groupwise.cli.recipe_text import recipe_text
    from groupwise.runs.files import cannot_write

    recipe = folder / "recipe.toml"
    texts = {
        recipe: recipe_text(task, {**COMMON, **CHOSEN[task]}, REWARDS, str(recipe)),
        folder / "reward.py": REWARD,
    }
    if task == "dataset":
        texts[folder / "problems.jsonl"] = PROBLEMS
    if taken := [str(path) for path in texts if path.exists()]:
        another = "my-task" if folder.resolve().name != "my-task" else "my-task-2"
        raise RunError(f"{' and '.join(taken)} would be overwritten; name another folder: groupwise init {another}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise RunError(cannot_write(folder, error, "the argument of groupwise init")) from error
    for path in texts:
        typer.echo(f"wrote {path}")
    typer.echo(f"next: groupwise train {recipe}")
