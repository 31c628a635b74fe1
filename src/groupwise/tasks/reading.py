"""Read the rows of a split: from a file, from a folder with a file per split, or from a data set on the hub.

    data/train.jsonl                  one file, one split
    data/  train.jsonl  test.jsonl    a folder: the split is the file's stem, or train-00000-of-00002.parquet, ...
    openai/gsm8k                      the hub, through `datasets`

What exists on disk is taken before the hub is asked. A `Source` that streams reads no more rows than are asked for.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, cast

from groupwise.errors import TaskError
from groupwise.tasks.hub import cached_unless_reachable

Row: TypeAlias = Mapping[str, Any]

_CONVERT = "Save it as UTF-8, for example: iconv -f GB18030 -t UTF-8 OLD > NEW (or -f UTF-16, -f LATIN1)"


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from. `name` is the configuration of a hub data set, or a folder inside a local copy of it.
    `streams`: rows come one by one, and a data set on the hub is not downloaded first."""

    path: str
    folder: Path = Path()
    name: str | None = None
    revision: str | None = None
    streams: bool = False

    @property
    def local(self) -> Path | None:
        """The file or folder, if there is one; None: an id on the hub."""
        found = self.folder / Path(self.path).expanduser()
        if found.exists():
            return found
        looks_like_a_path = Path(self.path).suffix in READERS or self.path.startswith((".", "/", "~"))
        if looks_like_a_path or self.path.count("/") > 1 or "\\" in self.path:
            raise TaskError(
                f"there is no file or folder {found}: relative paths start at the recipe's folder, and on the command "
                "line where the command runs"
            )
        return None


def read_split(source: Source, split: str, first: int | None = None) -> list[Row]:
    """The rows of one split, at least one; of a source that streams only the `first` so many."""
    most = first if source.streams else None
    place = source.local
    if place is None:
        rows, where = _from_hub(source, split, most), f"split {split!r} of {source.path} on the hub"
    else:
        files = [place] if place.is_file() else _split_files(place, split, source.name)
        found = (row for file in files for row in _each_row(file))
        rows, where = list(islice(found, most)), ", ".join(map(str, files))
    if not rows:
        raise TaskError(f"{where} has no rows: there is nothing to train or evaluate on")
    return rows


def read_file(path: Path) -> list[Row]:
    """All rows of a jsonl, json, csv or parquet file."""
    return list(_each_row(path))


def _each_row(path: Path) -> Iterator[Row]:
    reader = READERS.get(path.suffix)
    if reader is None:
        raise TaskError(f"{path} ends in {path.suffix!r}: rows are read from {', '.join(READERS)}")
    try:
        yield from reader(path)
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error}") from error


def _split_files(folder: Path, split: str, name: str | None) -> list[Path]:
    """The file, or the numbered parts, of a split in a folder."""
    places = [folder, folder / "data", *([folder / name] if name else [])]
    present = [f for place in places if place.is_dir() for f in sorted(place.iterdir()) if f.suffix in READERS]
    files = [f for f in present if f.stem == split] or [f for f in present if f.stem.startswith(f"{split}-")]
    if not files:
        stems = ", ".join(sorted({f.name for f in present})) or f"no {', '.join(READERS)} file at all"
        raise TaskError(f"{folder} has no file for the split {split!r}; it has {stems}")
    if len({(f.parent, f.suffix) for f in files}) > 1:
        raise TaskError(f"{folder} has several files for the split {split!r}, which one? {', '.join(map(str, files))}")
    return files


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _row(_parsed(line.rstrip(), f"{path}, line {number}"), f"{path}, line {number}")


def _json(path: Path) -> Iterator[Row]:
    rows = _parsed(path.read_bytes(), str(path))
    if not isinstance(rows, list):
        raise TaskError(f"{path} holds a {type(rows).__name__}: a json file of rows is a list of objects")
    for index, row in enumerate(cast(list[Any], rows)):
        yield _row(row, f"{path}, entry {index}")


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise TaskError(f"{where} is not UTF-8 ({error}). {_CONVERT}") from error
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, or a number of 5,000 digits
        raise TaskError(f"{where} is not valid JSON: {_place(error)}") from error


def _place(error: Exception) -> str:
    # In a file with a row a line, "line 1" would be taken for the file's.
    if isinstance(error, json.JSONDecodeError) and error.lineno == 1:
        return f"{error.msg} at column {error.colno}"
    return str(error)


def _row(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise TaskError(f"{where} is a {type(value).__name__}: a row is an object with a value for each column")
    return cast(Row, value)


def _csv(path: Path) -> Iterator[Row]:
    limit = csv.field_size_limit(2**31 - 1)  # a cell may be a whole document; the default stops at 128 KiB
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            names = list(reader.fieldnames or ())
            if twice := [name for name in names if names.count(name) > 1]:
                raise TaskError(
                    f"{path} has two columns called {twice[0]!r} in its header: rename or remove one of them"
                )
            for row in reader:
                if None in row or None in row.values():
                    raise TaskError(
                        f"{path}, line {reader.line_num} has not as many cells as the header has columns "
                        f"({len(reader.fieldnames or ())}): quote cells that contain commas"
                    )
                yield row
    except UnicodeDecodeError as error:
        raise TaskError(f"{path} is not UTF-8 ({error}). {_CONVERT}") from error
    except csv.Error as error:
        raise TaskError(f"{path} is not valid CSV: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _parquet(path: Path) -> Iterator[Row]:
    # Imported by name: pyarrow and datasets carry no types, and are slow to import where nobody reads such files.
    arrow: Any = import_module("pyarrow")
    parquet: Any = import_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches():
                yield from batch.to_pylist()
    except (arrow.ArrowException, ValueError, OverflowError) as error:  # ValueError: a text not in UTF-8
        raise TaskError(f"{path} is not a parquet file that can be read: {error}") from error


READERS: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _from_hub(source: Source, split: str, most: int | None) -> list[Row]:
    datasets: Any = import_module("datasets")
    where = {"split": split, "revision": source.revision, "streaming": source.streams}
    with cached_unless_reachable(source.path) as silence:
        try:
            return list(islice(datasets.load_dataset(source.path, source.name, **where), most))
        except Exception as error:
            # The library raises a dozen kinds of errors, from its own, huggingface_hub and the HTTP client below.
            raise TaskError(
                f"the split {split!r} of {source.path!r} (configuration {source.name}) could not be loaded from the "
                f"hub: {silence or f'{type(error).__name__}: {error}'}. Check the id and the network, or give the path "
                "of a folder of files"
            ) from error
