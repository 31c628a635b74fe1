"""The sections of a recipe about tasks, one for each `task.kind`. A string under a field is its documentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from groupwise.config.section import Section


class TaskSection(Section):
    """Settings that every kind of task has."""

    system_prompt: str | None = None
    """Put in front of every problem. "default" takes the task's own words, where it has some."""
    prompt_style: Literal["auto", "chat", "plain"] = "auto"
    """`chat` renders with the tokenizer's chat template, `plain` joins the texts with newlines. `auto`: chat where the
    tokenizer has a template."""
    max_prompt_tokens: int | None = Field(default=None, ge=1)
    """Longest prompt; unset: what the model's context leaves beside the completion."""
    long_prompts: Literal["drop", "truncate", "error"] = "drop"
    """What to do with a longer one. `truncate` keeps the end of the prompt."""


class ArithmeticTask(TaskSection):
    """Generated sums and differences. Nothing to download."""

    kind: Literal["arithmetic"]
    """Where the problems come from."""
    digits: int = Field(default=3, ge=1, le=12)
    """Digits of each number."""
    terms: int = Field(default=2, ge=2, le=8)
    """Numbers in a problem."""
    operations: list[Literal["+", "-"]] = Field(default=["+"], min_length=1)
    """Operations to draw from."""
    train_size: int = Field(default=20_000, ge=1)
    """Problems to train on."""
    eval_size: int = Field(default=256, ge=1)
    """Held-out problems; none of them is ever trained on."""
    worked: float = Field(default=1.0, ge=0, le=1)
    """Share of the demonstrations that work the sum out; the others state the answer at once."""


class Gsm8kTask(TaskSection):
    """Grade-school word problems (arXiv 2110.14168)."""

    kind: Literal["gsm8k"]
    """Where the problems come from."""
    path: str = "openai/gsm8k"
    """Id on the hub, or a folder with train.jsonl and test.jsonl (or parquet)."""
    train_split: str = "train"
    """Split to train on."""
    eval_split: str = "test"
    """Split to evaluate on."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first so many training rows."""
    hold_out: int = Field(default=0, ge=0)
    """Take this many problems out of the training split and evaluate on them instead of on `eval_split`."""


class DatasetTask(TaskSection):
    """Your own rows: jsonl, json, csv or parquet files, a folder of them, or a data set on the hub."""

    kind: Literal["dataset"]
    """Where the problems come from."""
    path: str = Field(min_length=1)
    """File, folder, or id on the hub."""
    name: str | None = None
    """Configuration of a hub data set."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    train_split: str = "train"
    """Split (or file stem in a folder) to train on."""
    eval_split: str | None = None
    """Split (or file stem in a folder) to evaluate on."""
    hold_out: int = Field(default=0, ge=0)
    """Take this many rows out of the training split for evaluation, when there is no `eval_split`."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Rename columns: `{prompt = "question", answer = "solution"}`. A `prompt` column must exist in the end."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first so many training rows."""


AnyTask = Annotated[ArithmeticTask | Gsm8kTask | DatasetTask, Field(discriminator="kind")]
