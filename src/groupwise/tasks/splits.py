"""The rows that a task is made of, as they lie in their files: what `groupwise check` looks through.

for split in raw_splits("boxed", {"path": "math.jsonl"}, folder=Path("recipes/mine"), seed=0):
    print(split.name, survey(split.rows, split.columns, split.convert).issues)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groupwise.tasks.boxed import to_row as boxed_row
from groupwise.tasks.choice import converter as choice_converter
from groupwise.tasks.code import to_row as code_row
from groupwise.tasks.dataset import Convert, rows_read
from groupwise.tasks.gsm8k import to_row as gsm8k_row
from groupwise.tasks.reading import Row, Source, read_split

_CONVERTERS: Mapping[str, Callable[[Mapping[str, Any], int], Convert | None]] = {
    "dataset": lambda settings, seed: None,
    "boxed": lambda settings, seed: boxed_row,
    "code": lambda settings, seed: code_row,
    "choice": lambda settings, seed: choice_converter(seed if settings.get("shuffle") else None),
    "gsm8k": lambda settings, seed: gsm8k_row,
}
"""By `task.kind`, for the kinds that read rows."""


@dataclass(frozen=True, slots=True)
class RawSplit:
    """The rows of a split and what becomes of each of them on its way to a problem."""

    name: str
    rows: Sequence[Row]
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    convert: Convert | None = None


def raw_splits(kind: str, settings: Mapping[str, Any], *, folder: Path, seed: int) -> Iterator[RawSplit]:
    """The split to train on and the one to evaluate on; nothing for kinds that make their problems themselves."""
    if kind not in _CONVERTERS:
        return
    convert = _CONVERTERS[kind](settings, seed)
    name = "main" if kind == "gsm8k" else settings.get("name")
    source = Source(settings["path"], folder, name, settings.get("revision"), settings.get("streaming", False))
    first = rows_read(settings.get("limit"), settings.get("hold_out") or 0)
    split_of_evaluation = None if settings.get("hold_out") else settings.get("eval_split")
    for split, most in ((settings["train_split"], first), (split_of_evaluation, None)):
        if split is not None:
            yield RawSplit(split, read_split(source, split, most), settings.get("columns", {}), convert)
