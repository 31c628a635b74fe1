"""The sections of a recipe about tasks, one for each `task.kind`. A string under a field is its documentation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from groupwise.config.rewards import RewardSection
from groupwise.config.section import Section


class TaskSection(Section):
    """Settings that every kind of task has."""

    system_prompt: str | None = None
    """Put in front of every problem. "default" takes the task's own words, where it has some."""
    prompt_style: Literal["auto", "chat", "plain"] = "auto"
    """`chat` renders with the tokenizer's chat template, `plain` joins the texts with newlines. `auto`: chat where the
    tokenizer has a template."""
    template_variables: dict[str, Any] = Field(default_factory=dict[str, Any])
    """What the chat template may ask for beside the messages, as in `{enable_thinking = false}`."""
    max_prompt_tokens: int | None = Field(default=None, ge=1)
    """Longest prompt; unset: what the model's context leaves beside the completion."""
    long_prompts: Literal["drop", "truncate", "error"] = "drop"
    """What to do with a longer one. `truncate` keeps the end of the prompt."""
    tools: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list[str])
    """Functions that the model may call, as `file.py:name` (beside the recipe) or `package.module:name`."""
    environment: str | None = None
    """What the model talks to, turn by turn: a class, as `file.py:name` or `package.module:name`."""


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
    train_size: int | None = Field(default=None, ge=1, le=100_000_000)
    """Problems to train on; unset: 20,000, or all there are where numbers are short."""
    eval_size: int | None = Field(default=None, ge=1, le=100_000_000)
    """Held-out problems; none of them is ever trained on. Unset: 256, or a tenth of all there are."""
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


class RowsTask(TaskSection):
    """Settings of tasks that read rows: jsonl, json, csv or parquet files, a folder of them, a data set on the hub."""

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
    streaming: bool = False
    """Read no more rows than `limit` and `hold_out` ask for; of a data set on the hub only these are downloaded."""


class DatasetTask(RowsTask):
    """Your own rows: a prompt, and whatever the rewards need."""

    kind: Literal["dataset"]
    """Where the problems come from."""


class BoxedTask(RowsTask):
    r"""Mathematics as in MATH (arXiv 2103.03874): a `problem`, and a `solution` with the answer in \boxed{}."""

    kind: Literal["boxed"]
    """Where the problems come from."""


class ChoiceTask(RowsTask):
    """Multiple choice as in MMLU, ARC, GPQA: a question, its choices, and which of them is right."""

    kind: Literal["choice"]
    """Where the problems come from."""
    shuffle: bool = False
    """Put the choices in an order of the problem's own, by the seed."""


class CodeTask(RowsTask):
    """Programs to write, as in MBPP, HumanEval, APPS: rows with tests, or with inputs and outputs."""

    kind: Literal["code"]
    """Where the problems come from."""


class FileTask(TaskSection):
    """A task of your own: a function in a file, which returns rows or a whole `Task`."""

    kind: Literal["file"]
    """Where the problems come from."""
    path: str = Field(min_length=1)
    """The function, as `file.py:name` (beside the recipe) or `package.module:name`."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What it is called with."""
    hold_out: int = Field(default=0, ge=0)
    """Take this many rows out for evaluation."""
    limit: int | None = Field(default=None, ge=1)
    """Train on the first so many only."""


class GymSet(Section):
    """One set of reasoning-gym among several."""

    name: str
    """Its name in the library, such as "countdown"."""
    weight: float = Field(default=1.0, gt=0)
    """How often it is drawn, relative to the others."""
    difficulty: int | None = Field(default=None, ge=0)
    """Level of the library's own curriculum; unset: the set's defaults."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the set, before those of the difficulty."""


class ReasoningGymTask(TaskSection):
    """Procedural problems with verifiers (reasoning-gym, arXiv 2505.24760). Needs the extra `gym`."""

    kind: Literal["reasoning_gym"]
    """Where the problems come from."""
    name: str | None = None
    """One set of the library, such as "countdown"; or give `sets`."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the set, such as `{min_numbers = 3}`, before those of the difficulty."""
    difficulty: int | None = Field(default=None, ge=0)
    """Level of the library's own curriculum; unset: the set's defaults."""
    sets: list[GymSet] = Field(default_factory=list[GymSet])
    """Several sets, drawn by weight: `[{name = "maze"}, {name = "chain_sum", weight = 2}]`."""
    train_size: int = Field(default=1000, ge=1, le=10_000_000)
    """Problems to train on, those left out that ask a held-out question."""
    eval_size: int = Field(default=100, ge=1, le=10_000_000)
    """Held-out problems."""


OneTask = Annotated[
    ArithmeticTask | Gsm8kTask | DatasetTask | BoxedTask | ChoiceTask | CodeTask | ReasoningGymTask | FileTask,
    Field(discriminator="kind"),
]
"""Every kind but mixtures, which do not stand in each other."""


class MixturePart(Section):
    """A task of a mixture."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,40}$", json_schema_extra={"allowed": "letters, digits, _ and -"})
    """What it is called in metrics and in the names of its problems and rewards."""
    weight: float = Field(default=1.0, gt=0)
    """How often it is drawn, relative to the other parts."""
    task: OneTask
    """Any kind of task but a mixture."""
    rewards: list[RewardSection] = Field(default_factory=list[RewardSection])
    """What grades this part alone; empty: the task's own rewards."""


class MixtureTask(TaskSection):
    """Several tasks in one run, drawn by weight, each with its own rewards."""

    kind: Literal["mixture"]
    """Where the problems come from."""
    parts: list[MixturePart] = Field(min_length=1)
    """The tasks: `[[task.parts]]` with `name`, `weight`, `task` and `rewards`."""


AnyTask = Annotated[
    ArithmeticTask
    | Gsm8kTask
    | DatasetTask
    | BoxedTask
    | ChoiceTask
    | CodeTask
    | ReasoningGymTask
    | FileTask
    | MixtureTask,
    Field(discriminator="kind"),
]
