"""Your own rows as a task: a file, a folder of files, or a data set on the hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from groupwise.errors import TaskError
from groupwise.tasks.reading import Row, Source, read_split
from groupwise.tasks.rows import renamed, rows
from groupwise.tasks.task import Task

Convert: TypeAlias = Callable[[Row, str], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class _Settings:
    name: str | None = None
    """Configuration of a hub data set."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    train_split: str = "train"
    """Split (or file stem in a folder) to train on."""
    eval_split: str | None = None
    """Split (or file stem in a folder) to evaluate on."""
    hold_out: int = 0
    """Rows to take out of the training split for evaluation, when there is no `eval_split`."""
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    """New name -> name in the data."""
    limit: int | None = None
    """Train on the first so many rows."""
    streaming: bool = False
    """Read only the rows that `limit` and `hold_out` ask for."""
    system_prompt: str | None = None
    """Put in front of every problem."""


def dataset(
    path: str, *, folder: Path = Path(), seed: int = 0, convert: Convert | None = None, **settings: Any
) -> Task:
    """A task of jsonl, json, csv or parquet files, or of a hub data set. See `_Settings` for what else can be set, and
    `rows` for what a row holds. `convert` makes such a row of one of the file's, and is told which one it is.

    Example: `dataset("sums.jsonl", columns={"prompt": "question"}, hold_out=100)`
    """
    chosen = _Settings(**settings)
    source = Source(path, folder, chosen.name, chosen.revision, chosen.streaming)
    _check_fits(source, chosen)

    def split(name: str, first: int | None = None) -> list[Row]:
        found = read_split(source, name, first)
        if convert is None:
            return found
        where = f"{path}, split {name!r}, row"
        return [convert(renamed(row, chosen.columns, f"{where} {i}"), f"{where} {i}") for i, row in enumerate(found)]

    held_out = None if chosen.eval_split is None else split(chosen.eval_split)
    return rows(
        split(chosen.train_split, rows_read(chosen.limit, chosen.hold_out)),
        held_out,
        name=Path(path).stem,
        columns={} if convert else chosen.columns,
        hold_out=chosen.hold_out,
        limit=chosen.limit,
        system_prompt=chosen.system_prompt,
        seed=seed,
    )


def rows_read(limit: int | None, hold_out: int) -> int | None:
    """How many rows of the training split are looked at where they stream: those to train on and those held out."""
    return None if limit is None else limit + hold_out


def _check_fits(source: Source, chosen: _Settings) -> None:
    """Settings that this kind of source has no use for are mistakes, not decoration."""
    if chosen.streaming and chosen.limit is None:
        raise TaskError("task.streaming: nobody knows where a stream ends. Say how many rows to train on: task.limit")
    place = source.local
    if place is None:
        return
    if chosen.revision is not None:
        raise TaskError(f"task.revision = {chosen.revision!r} is for data sets on the hub, but {place} is on this disk")
    if chosen.name is not None and not (place / chosen.name).is_dir():
        raise TaskError(
            f"task.name = {chosen.name!r} is the configuration of a hub data set, but {place} is on this disk and has "
            "no folder of that name: remove it"
        )
    if place.is_file() and chosen.eval_split is not None:
        raise TaskError(
            f"{place} is one file and has no split {chosen.eval_split!r}: use task.hold_out to evaluate on rows of it, "
            "or give a folder with one file per split"
        )
    if place.is_file() and chosen.train_split != "train":
        raise TaskError(f"{place} is one file and has no split {chosen.train_split!r}: remove task.train_split")
