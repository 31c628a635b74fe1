"""Runs that were made elsewhere and came here: copied, moved, or a stranger's. Nothing in them leads out of them.

    made_here(path, facts)        by `run.json`: on this host, in this place
    refuse_links(path)            RunError that names the first link, of any depth

Who goes on with a run appends to its files, replaces and removes them. In one that was handed on, `log` may be a link
to somebody's `.bashrc` and `checkpoints` one to their home. Who has put links into a run of their own keeps them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groupwise.errors import RunError


def made_here(path: Path, facts: Mapping[str, Any]) -> bool:
    """Whether the record says so. No proof against one who knows both names."""
    return facts.get("host") == socket.gethostname() and facts.get("home") == str(path.resolve())


def refuse_links(path: Path) -> None:
    """Names of files and folders may not stand for others."""
    for folder, names, files in os.walk(path):
        for name in (*names, *files):
            entry = Path(folder, name)
            if entry.is_symlink():
                target = str(entry.readlink())
                raise RunError(
                    f"{path} was not made here, and {entry} in it is a link to {target!r}, which would be "
                    "written to. If it is yours, put there what it leads to; else remove it, or train under another "
                    "name (run.name=...)"
                )
