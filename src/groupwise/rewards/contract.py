"""The nouns of grading: what a reward function is, what it is given, and what it is called.

The contract is TRL's, so that a reward function written for TRL runs unchanged:

    def shorter(completions, answer, **kwargs):          # everything comes by keyword, one entry per row
        return [-float(len(text)) for text in completions]

Keywords: `prompts`, `completions`, `completion_ids`, every column of the rows (`answer`, ...) as a list, and
`trainer_state`, `log_extra`, `log_metric`. groupwise adds `finish_reasons`, and a function without `**kwargs` is given
only what it names. Rows are prompt-major: the G completions of a problem stand together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from groupwise.types import FinishReason, Message, Prompt

RESERVED = frozenset({"prompts", "completions", "finish_reasons", "trainer_state", "log_extra", "log_metric"})
"""Keywords that no column and no setting may be called."""

NOT_COLUMNS = frozenset({"prompt", "completion", "completion_ids"})
"""Keys of a row that are not handed on as columns (as in TRL)."""


@dataclass(frozen=True, slots=True)
class TrainerState:
    """How far training is, for rewards that change on the way (the names are those of transformers' TrainerState).

    `log_history` has the metrics of the steps so far; what stands below it means nothing here and is as transformers
    has it when nothing was configured and nothing has happened, so that a reward that reads it finds it.
    """

    global_step: int = 0
    max_steps: int = 0
    epoch: float = 0.0
    log_history: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    logging_steps: int = 1
    eval_steps: int = 500
    save_steps: int = 500
    train_batch_size: int | None = None
    num_train_epochs: int = 1
    num_input_tokens_seen: int = 0
    total_flos: float = 0.0
    best_metric: float | None = None
    best_global_step: int | None = None
    best_model_checkpoint: str | None = None
    is_local_process_zero: bool = True
    is_world_process_zero: bool = True
    is_hyper_param_search: bool = False
    trial_name: str | None = None
    trial_params: dict[str, Any] | None = None
    stateful_callbacks: dict[str, Any] = field(default_factory=dict[str, Any])


OnError: TypeAlias = Literal["unknown", "retry", "stop"]
"""What becomes of rows that a function fails on: no reward for them, another attempt first, or the end of the run."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process of its own can import a function from: `function` as a recipe names it, seen from `folder`."""

    function: str
    folder: Path
    stamp: str = ""
    """What changes when the file does."""

    @property
    def module(self) -> str:
        """The file or module, without the function: functions that share it share a process."""
        return f"{self.folder}|{self.function.rpartition(':')[0]}"


@dataclass(frozen=True, slots=True)
class RewardFunction:
    """A function that grades, its weight in the sum, and keyword settings that it is called with.

    `deadline` is how many seconds it may spend without going on to the next completion. With a `place` it runs in a
    process of its own, which can be killed; else in a thread, which can only be left behind. `cache`: the same text for
    the same problem is graded once.

    Example: `RewardFunction("shorter", shorter, weight=0.1)`
    """

    name: str
    function: Callable[..., Any]
    weight: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    on_error: OnError = "unknown"
    deadline: float = 60.0
    cache: bool = False
    place: Place | None = None
    task: str = ""
    """In a run of several tasks, the one that it grades; empty: all."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The batch to grade, prompt-major: all fields and all columns have one entry per completion."""

    prompts: Sequence[Prompt]
    completions: Sequence[str]
    completion_ids: Sequence[Sequence[int]]
    finish_reasons: Sequence[FinishReason]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict[str, Sequence[Any]])
    said: Sequence[Sequence[Message]] = ()
    """Of conversations, what was said turn by turn; nothing for a row of one turn."""
    tasks: Sequence[str] = ()
    """In a run of several tasks, which one each row belongs to."""

    def __post_init__(self) -> None:
        for what in (self.completions, self.completion_ids, self.finish_reasons, *self.columns.values()):
            assert len(what) == len(self.prompts), f"{len(what)} entries for {len(self.prompts)} rows"

    def __len__(self) -> int:
        return len(self.prompts)

    def row(self, index: int) -> Answers:
        """That row alone."""
        return self.rows([index])

    def rows(self, indices: Sequence[int]) -> Answers:
        """Those rows, in that order."""

        def some(values: Sequence[Any]) -> list[Any]:
            return [values[index] for index in indices]

        return Answers(
            some(self.prompts),
            some(self.completions),
            some(self.completion_ids),
            some(self.finish_reasons),
            {name: some(values) for name, values in self.columns.items()},
            some(self.said) if self.said else (),
            some(self.tasks) if self.tasks else (),
        )

    def keywords(self) -> dict[str, Any]:
        """The keywords of TRL's contract, in lists that belong to the callee (a function may change what it is given).

        A conversation's completion is `[{"role": "assistant", "content": text}]`, a plain prompt's the text itself.
        """
        given: dict[str, Any] = {name: list(values) for name, values in self.columns.items() if name not in NOT_COLUMNS}
        given["prompts"] = [p if isinstance(p, str) else [dict(message) for message in p] for p in self.prompts]
        given["completions"] = [
            _as_completion(prompt, text, self.said[row] if self.said else ())
            for row, (prompt, text) in enumerate(zip(self.prompts, self.completions, strict=True))
        ]
        given["completion_ids"] = [list(ids) for ids in self.completion_ids]
        given["finish_reasons"] = list(self.finish_reasons)
        return given


def _as_completion(prompt: Prompt, text: str, said: Sequence[Message]) -> str | list[dict[str, Any]]:
    """A completion as TRL has it: of a conversation its messages, of a plain prompt the text."""
    if said:
        return [dict(message) for message in said]
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


@runtime_checkable
class _Named(Protocol):
    __name__: str


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function inside `functools.partial`, however often it was wrapped."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def name_of(function: Callable[..., Any]) -> str:
    """What metrics call it: its `__name__`, that of the function inside a partial, or its class's name."""
    inner: Any = unwrapped(function)
    return inner.__name__ if isinstance(inner, _Named) else type(inner).__name__
