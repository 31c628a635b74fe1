"""Names of runs and how they become folders: a name is one plain folder name, on every system, and never a path.

checked("demo-3")      "demo-3"
checked("../x")        RunError
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from groupwise.errors import RunError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# Windows opens a device under these names, whatever the ending; refused everywhere, so that runs can be copied.
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)


def checked(name: str) -> str:
    """The name, if it can name a folder and nothing but a folder right here."""
    if not _NAME.fullmatch(name) or _DEVICES.fullmatch(name) or name.endswith("."):
        raise RunError(
            f"run.name = {name[:120]!r} cannot name a folder: use 1 to 100 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit (and not a device name such as CON), for example run.name=my-run"
        )
    return name


def not_a_run(path: Path) -> str:
    """Why a path is no run, with the runs that may have been meant."""
    if path.is_file():
        return f"{path} is a file, not the folder of a run"
    if not path.exists():
        near = meant(path)
        hint = f"did you mean {' or '.join(map(str, near))}?" if near else "check the path"
        return f"there is no run at {path}; {hint}"
    inside = _runs_in(path)
    if inside:
        some = ", ".join(str(path / name) for name in inside[:5])
        return f"{path} is not a run but holds {len(inside)} of them: name one, such as {some}"
    if (path.parent / "run.json").is_file():
        return f"{path} is a part of a run: name the run itself, {path.parent}"
    return f"{path} is not a run: it has no run.json; name a folder that `groupwise train` wrote, such as runs/demo"


def meant(path: Path) -> list[Path]:
    """Runs whose place is spelled nearly so, the folder of runs included: `run/demo` for `runs/demo`."""
    folders, place = [path.parent], path.parent
    if not place.is_dir() and place.parent.is_dir():
        beside = [entry.name for entry in place.parent.iterdir() if entry.is_dir()]
        folders = [place.with_name(name) for name in difflib.get_close_matches(place.name, beside, n=2)]
    return [
        folder / name
        for folder in folders
        for name in difflib.get_close_matches(path.name, _runs_in(folder), n=3, cutoff=0.5)
    ]


def _runs_in(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir() if (entry / "run.json").is_file())
    except OSError:
        return []
