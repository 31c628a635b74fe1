"""What `groupwise check` says of the rows in the files of a task: each that is wrong, with its column and its cure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groupwise.cli.findings import Finding, Level

if TYPE_CHECKING:
    from groupwise.config import LoadedRecipe
    from groupwise.tasks.survey import Issue, Survey

_SHOWN = 20
"""Rows of each split that are told one by one."""


def rows(loaded: LoadedRecipe) -> Iterator[Finding]:
    """Split after split, also where the run would not start: it stops at the first bad row, this names them all."""
    section = loaded.recipe.task.model_dump()
    for name, task in _tasks(section):
        yield from _of_task(name, task, loaded.folder, loaded.recipe.seed)


def _tasks(section: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if section["kind"] != "mixture":
        yield "", section
        return
    for part in section["parts"]:
        yield f"{part['name']}/", part["task"]


def _of_task(name: str, section: Mapping[str, Any], folder: Path, seed: int) -> Iterator[Finding]:
    from groupwise.errors import TaskError
    from groupwise.tasks.splits import raw_splits
    from groupwise.tasks.survey import survey

    try:
        for split in raw_splits(section["kind"], section, folder=folder, seed=seed):
            yield from _told(f"{name}{split.name}", survey(split.rows, split.columns, split.convert))
    except TaskError as error:  # a file that cannot be read is told where the task is loaded, too
        yield Finding("rows", "error", str(error))


def _told(split: str, found: Survey) -> Iterator[Finding]:
    stopping = [issue for issue in found.issues if issue.stops]
    odd = [issue for issue in found.issues if not issue.stops]
    groups: list[tuple[Level, list[Issue]]] = [("error", stopping), ("warning", odd)]
    worst: Level = "error" if stopping else "warning" if odd else "ok"
    text = f"{split}: {found.rows:,} rows, {found.good:,} become problems"
    told = {"rows": found.rows, "good": found.good, "stopping": len(stopping), "odd": len(odd)}
    yield Finding("rows", worst, text, values=told)
    for level, issues in groups:
        for issue in issues[:_SHOWN]:
            text = f"{split}, row {issue.row}, column {issue.column!r}: {issue.excerpt}: {issue.why}"
            values = {"split": split, "row": issue.row, "column": issue.column}
            yield Finding("rows", level, text, issue.cure, values)
        if len(issues) > _SHOWN:
            yield Finding("rows", level, f"{split}: and {len(issues) - _SHOWN:,} more like these")
