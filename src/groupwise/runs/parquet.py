"""Tables on disk: the one place of this room that knows pyarrow. Columns have one of six kinds, the same in every run.

    write_table(path, {"step": "integer", "text": "text"}, {"step": [1, 2], "text": ["a", "b"]})
    read_table(path)       # [{"step": 1, "text": "a"}, {"step": 2, "text": "b"}]

Compressed with zstd, written beside and renamed. Any column may hold None.
"""
# pyarrow has no type information, so what comes from it is unknown to the type checker; the functions below are typed.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from groupwise.errors import RunError
from groupwise.runs.files import replacing

Kind: TypeAlias = Literal[
    "integer", "number", "truth", "text", "integers", "numbers", "numbers by name", "texts by name"
]

_TYPES: Mapping[Kind, Any] = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "truth": pa.bool_(),
    "text": pa.string(),
    "integers": pa.list_(pa.int32()),
    "numbers": pa.list_(pa.float32()),
    "numbers by name": pa.map_(pa.string(), pa.float64()),
    "texts by name": pa.map_(pa.string(), pa.string()),
}


def write_table(path: Path, kinds: Mapping[str, Kind], columns: Mapping[str, Sequence[Any]]) -> None:
    """Write a whole table, or leave the old one as it was. A mapping in a "by name" column is one cell."""
    assert kinds.keys() == columns.keys(), f"columns {sorted(columns)} are not {sorted(kinds)}"
    arrays = [pa.array([_cell(value) for value in columns[name]], type=_TYPES[kind]) for name, kind in kinds.items()]
    table = pa.Table.from_arrays(arrays, names=list(kinds))
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(path: Path) -> list[dict[str, Any]]:
    """All rows of a table; "by name" columns come back as dicts."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise RunError(f"cannot read {path}: it is no file")
    try:
        table = pq.ParquetFile(path).read()
    except FileNotFoundError as error:
        raise RunError(f"there is no {path}") from error
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"cannot read {path}: {error}; the file was damaged or is not a table of groupwise") from error
    maps = [field.name for field in table.schema if pa.types.is_map(field.type)]
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        for name in maps:
            row[name] = dict(row[name] or ())
    return rows


def _cell(value: Any) -> Any:
    return list(value.items()) if isinstance(value, Mapping) else value
