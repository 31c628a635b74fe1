"""Look through rows before they become problems: everything that is wrong with them at once, each with its cure.

    survey(rows).issues[0]
    Issue(row=41, column="answer", excerpt="None", why="has no value, and 99 rows have one", cure="...", stops=False)

`to_problems` stops at the first row that it cannot take; this names all of them, and what is merely odd as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, cast

from groupwise.errors import TaskError
from groupwise.rewards import RESERVED
from groupwise.tasks.dataset import Convert
from groupwise.tasks.rows import renamed, to_problem

LARGE_CELL = 1 << 20
"""Characters (or bytes) above which a cell is called large."""

_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing about one cell. `stops`: a run with this row does not start."""

    row: int
    column: str
    excerpt: str
    why: str
    cure: str
    stops: bool = True

    def __str__(self) -> str:
        return f"row {self.row}, column {self.column!r}: {self.excerpt}: {self.why}. {self.cure}"


@dataclass(slots=True)
class Survey:
    """How many rows there are, how many become problems, and what is wrong with the others."""

    rows: int = 0
    good: int = 0
    issues: list[Issue] = field(default_factory=list[Issue])


@dataclass(slots=True)
class _Seen:
    """What the rows so far had in common."""

    kinds: dict[str, Counter[str]] = field(default_factory=dict[str, "Counter[str]"])
    firsts: dict[bytes, int] = field(default_factory=dict[bytes, int])
    cells: list[dict[str, tuple[str, str]]] = field(default_factory=list["dict[str, tuple[str, str]]"])


def survey(rows: Iterable[Any], columns: Mapping[str, str] | None = None, convert: Convert | None = None) -> Survey:
    """Every row is looked at once; `columns` renames as `task.columns` does, `convert` is what the kind of task makes
    of a row. What is kept of a row is a few words.

    Example: `for issue in survey(read_file(Path("rows.jsonl"))).issues: print(issue)`
    """
    found, seen = Survey(), _Seen()
    for index, row in enumerate(rows):
        found.rows += 1
        if not isinstance(row, Mapping):
            found.issues.append(Issue(index, "", excerpt(row), "is no row", "Write an object with a value per column"))
            seen.cells.append({})
            continue
        named = cast("Mapping[str, Any]", row)
        fatal = list(_unusable(named, index, columns or {}, convert))
        found.issues += [*fatal, *_odd(named, index, columns or {}, seen)]
        found.good += not fatal
    if not found.rows:
        found.issues.append(Issue(0, "", "nothing", "there are no rows", "Check the path and the split"))
    found.issues += _unlike(seen)
    found.issues.sort(key=lambda issue: (issue.row, issue.column))
    return found


def excerpt(value: Any) -> str:
    """The beginning of a cell, in characters that every terminal can show."""
    if isinstance(value, str | bytes):
        head = ascii(value[:_SHOWN])
        return head if len(value) <= _SHOWN else f"{head}... ({len(value):,} long)"
    return ascii(value)[:_SHOWN] if not isinstance(value, list | tuple | dict) else ascii(value)[: 2 * _SHOWN]


def _unusable(
    row: Mapping[str, Any], index: int, columns: Mapping[str, str], convert: Convert | None
) -> Iterator[Issue]:
    """What `to_problems` would stop at."""
    for name in sorted(RESERVED & row.keys() - set(columns.values())) if convert is None else ():
        cure = f'Rename it: task.columns = {{my_{name} = "{name}"}}'
        yield Issue(index, name, excerpt(row[name]), "reward functions are given something else by that name", cure)
        return
    try:
        if convert is not None:
            row, columns = convert(renamed(row, columns, f"row {index}"), f"row {index}"), {}
        to_problem(row, index, "", columns)
    except TaskError as error:
        column = next((name for name in row if f"column {name!r}" in str(error)), columns.get("prompt", "prompt"))
        where, _, why = str(error).partition(f"row {index}")
        why, _, cure = (why or where).lstrip(" ,:").partition(": ")
        yield Issue(
            index, column, excerpt(row.get(column)), why, cure[:1].upper() + cure[1:] or "Mend or remove the row"
        )


def _odd(row: Mapping[str, Any], index: int, columns: Mapping[str, str], seen: _Seen) -> Iterator[Issue]:
    """What a run would take, and its user should know; notes what kind of value each cell holds."""
    kinds: dict[str, tuple[str, str]] = {}
    for name, value in row.items():
        kind = _kind(value)
        kinds[name] = kind, excerpt(value)
        seen.kinds.setdefault(name, Counter())[kind] += 1
        if isinstance(value, str | bytes) and len(value) > LARGE_CELL:
            cure = "Cut it, or take the column out"
            yield Issue(index, name, excerpt(value), "is very large and is kept in memory", cure, stops=False)
        if isinstance(value, bytes):
            yield Issue(
                index, name, excerpt(value), "holds bytes, not text", "Decode it where the data are made", False
            )
    seen.cells.append(kinds)
    prompt = row.get(columns.get("prompt", "prompt"))
    if isinstance(prompt, str | list | tuple):
        key = blake2b(repr(prompt).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        first = seen.firsts.setdefault(key, index)
        if first != index:
            why = f"asks the same as row {first}"
            yield Issue(index, columns.get("prompt", "prompt"), excerpt(prompt), why, "Remove one of them", stops=False)


def _kind(value: Any) -> str:
    if value is None:
        return "no value"
    if isinstance(value, bool):
        return "true or false"
    if (
        isinstance(value, list | tuple)
        and value
        and all(isinstance(v, Mapping) and "role" in v for v in cast("Sequence[Any]", value))
    ):
        return "a conversation"
    names = {"str": "a text", "int": "a number", "float": "a number", "dict": "a table", "list": "a list"}
    return names.get(type(value).__name__, type(value).__name__)


def _unlike(seen: _Seen) -> Iterator[Issue]:
    """Rows that lack a column that most have, have one that most lack, or hold another kind of value in it."""
    total = sum(1 for kinds in seen.cells if kinds)
    usual = {name: kinds.most_common(1)[0] for name, kinds in seen.kinds.items()}
    for index, kinds in enumerate(seen.cells):
        if not kinds:
            continue
        for name, counts in seen.kinds.items():
            having = counts.total()
            if name not in kinds and having * 2 > total:
                yield Issue(index, name, "nothing", f"is missing, and {having} rows have it", "Fill it in", stops=False)
            elif name in kinds and having * 2 <= total:
                why = f"only {having} of {total} rows have this column: in the others it is None"
                yield Issue(index, name, kinds[name][1], why, "Fill it in everywhere, or take it out", stops=False)
            elif name in kinds and kinds[name][0] != usual[name][0]:
                why = f"is {kinds[name][0]}, where {usual[name][1]} rows have {usual[name][0]}"
                yield Issue(index, name, kinds[name][1], why, "Give all rows the same kind of value", stops=False)
