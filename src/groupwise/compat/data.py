"""What TRL takes as a data set, as rows: a `Dataset`, an `IterableDataset`, a list.

A text prompt is continued as it is, a conversation goes through the chat template. A data set has the one or the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

from groupwise.compat.batches import Batches
from groupwise.compat.config import SharedConfig
from groupwise.errors import RecipeError, TaskError
from groupwise.tasks.rows import bounded

Rows = Sequence[Mapping[str, Any]]


@runtime_checkable
class _Streamed(Protocol):
    """What `datasets.IterableDataset` can do: no length, and an order that is mixed within a buffer."""

    def shuffle(self, seed: int | None = None) -> Iterable[Mapping[str, Any]]: ...

    def take(self, n: int) -> Iterable[Mapping[str, Any]]: ...


def training_rows(dataset: object, args: SharedConfig, batches: Batches, *, owned: bool = False) -> Rows:
    """The rows to train on. Of a stream as many as `max_steps` asks for, in its order or mixed within its buffer.
    `owned`: there is one environment, which may bring the prompts itself, from its `reset`."""
    if dataset is None and owned:
        if args.max_steps <= 0:
            raise RecipeError("without train_dataset nobody knows how long training is: set max_steps")
        return [{"prompt": [{"role": "user", "content": ""}]} for _ in range(batches.prompts)]
    if dataset is None:
        raise TaskError("train_dataset is needed: rows with a `prompt` and what the reward functions ask for")
    if isinstance(dataset, Mapping):
        splits = ", ".join(map(str, cast("Mapping[object, object]", dataset)))
        raise TaskError(f"train_dataset has the splits {splits}: choose one, such as dataset['train']")
    if not is_stream(dataset):
        return _columns(cast("Iterable[Mapping[str, Any]]", dataset), args)
    assert isinstance(dataset, _Streamed)
    if args.max_steps <= 0:
        raise RecipeError("train_dataset is a stream, whose end nobody knows: set max_steps")
    stream = dataset.shuffle(seed=args.seed) if args.shuffle_dataset is not False else dataset.take(1 << 60)
    wanted = batches.steps(args, None) * batches.prompts
    return _columns(bounded(stream, "train_dataset", wanted), args)


def is_stream(dataset: object) -> bool:
    """Whether this is a data set whose rows come one after the other and were not counted."""
    if isinstance(dataset, Sequence) or not isinstance(dataset, _Streamed):
        return False
    try:
        return len(cast("Sequence[object]", dataset)) < 0
    except TypeError:
        return True


def evaluation_rows(dataset: object, args: SharedConfig) -> dict[str, Rows]:
    """The rows to evaluate on, by the name that stands before their metrics: empty for a single data set."""
    if dataset is None:
        return {}
    if isinstance(dataset, Mapping):
        splits = cast("Mapping[str, Iterable[Mapping[str, Any]]]", dataset)
        return {f"{name}_": _columns(rows, args) for name, rows in splits.items()}
    return {"": _columns(cast("Iterable[Mapping[str, Any]]", dataset), args)}


def prompt_style(rows: Rows) -> str:
    """`plain` for texts, `chat` for conversations; TRL renders neither in the other's way."""
    kinds = {isinstance(row.get("prompt"), str) for row in rows}
    if len(kinds) > 1:
        raise TaskError("some prompts are texts and some are conversations: make them all the one or the other")
    return "plain" if kinds == {True} else "chat"


def _columns(rows: Iterable[Mapping[str, Any]], args: SharedConfig) -> list[dict[str, Any]]:
    listed = [dict(row) for row in bounded(rows, "the data set")]
    if args.remove_unused_columns:
        return [{"prompt": row["prompt"]} if "prompt" in row else row for row in listed]
    return listed
