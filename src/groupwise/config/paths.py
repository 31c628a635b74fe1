"""Where relative paths start: those of a recipe in its folder, those of the command line where the command runs.

    groupwise train recipes/sums/recipe.toml task.path=data/sums.jsonl      # ./data, not recipes/sums/data

A path of the command line is made absolute, so that the record of a run says where it was, wherever it is read again.
What is no path (the id of a model or of a data set on the hub) stays as it is.
"""

from __future__ import annotations

from pathlib import Path

from groupwise.config.draft import COMMAND_LINE, Draft
from groupwise.config.names import Name, as_table

_PATHS: tuple[Name, ...] = (("model", "id"), ("task", "path"), ("sft", "path"))
"""Settings that name a file or a folder."""

_FILES = (".jsonl", ".json", ".csv", ".parquet")
"""Endings of files of rows. No such file: the message has to say where it was looked for."""


def root_overrides(draft: Draft) -> None:
    """Make the paths absolute that were given on the command line."""
    for section, key in _PATHS:
        table = as_table(draft.tree.get(str(section)))
        text = table.get(str(key))
        if isinstance(text, str) and draft.origin((section, key)).source == COMMAND_LINE:
            table[str(key)] = _rooted(text, folders_only=section == "model")


def _rooted(text: str, *, folders_only: bool) -> str:
    try:
        path = Path(text).expanduser()
        exists = path.is_dir() if folders_only else path.exists()
    except (OSError, RuntimeError):  # a name too long for a file, the home of nobody: whoever opens it says so
        return text
    is_file_name = not folders_only and path.suffix in _FILES
    return str(path.absolute()) if exists or is_file_name or text.startswith((".", "~")) else text
