"""The table of tasks, and the one call that makes a task from a recipe's section."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from groupwise.errors import TaskError
from groupwise.tasks.arithmetic import SYSTEM_PROMPT as ARITHMETIC_WORDS
from groupwise.tasks.arithmetic import arithmetic
from groupwise.tasks.boxed import SYSTEM_PROMPT as BOXED_WORDS
from groupwise.tasks.boxed import boxed
from groupwise.tasks.choice import SYSTEM_PROMPT as CHOICE_WORDS
from groupwise.tasks.choice import choice
from groupwise.tasks.code import SYSTEM_PROMPT as CODE_WORDS
from groupwise.tasks.code import code
from groupwise.tasks.dataset import dataset
from groupwise.tasks.file import file
from groupwise.tasks.gsm8k import SYSTEM_PROMPT as GSM8K_WORDS
from groupwise.tasks.gsm8k import gsm8k
from groupwise.tasks.gym import reasoning_gym
from groupwise.tasks.gym.task import SYSTEM_PROMPT as GYM_WORDS
from groupwise.tasks.mixture import mixture
from groupwise.tasks.task import Task, system_words

TASKS: Mapping[str, Callable[..., Task]] = {
    "arithmetic": arithmetic,
    "gsm8k": gsm8k,
    "dataset": dataset,
    "boxed": boxed,
    "choice": choice,
    "code": code,
    "reasoning_gym": reasoning_gym,
    "file": file,
    "mixture": mixture,
}
"""By `task.kind` of a recipe. To add one: write `name(**settings) -> Task`, enter it here and its section in config."""

OWN_WORDS: Mapping[str, str] = {
    "arithmetic": ARITHMETIC_WORDS,
    "gsm8k": GSM8K_WORDS,
    "boxed": BOXED_WORDS,
    "choice": CHOICE_WORDS,
    "code": CODE_WORDS,
    "reasoning_gym": GYM_WORDS,
}
"""What `task.system_prompt = "default"` stands for."""


def system_prompt_of(kind: str, asked: str | None) -> str | None:
    """The system prompt of a task that is not built: to render a prompt of one's own as in training."""
    return system_words(asked, OWN_WORDS.get(kind), kind)


def build_task(kind: str, settings: Mapping[str, Any], *, seed: int, folder: Path) -> Task:
    """The task of that kind. `settings` are those of its section, without the ones about rendering prompts.

    `folder` is where relative paths start; a task that reads no files is not given it.
    Example: `build_task("arithmetic", {"digits": 2}, seed=0, folder=Path())`
    """
    if kind not in TASKS:
        raise TaskError(f"there is no task of the kind {kind!r}. There are: {', '.join(TASKS)}")
    make = TASKS[kind]
    reads_files = "folder" in inspect.signature(make).parameters
    return make(**settings, seed=seed, **({"folder": folder} if reads_files else {}))
