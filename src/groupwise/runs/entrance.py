"""How the folder of a run is entered: an empty one begins a run, one that holds a run goes on with it.

    entrance = look(Path("runs"), "demo", loaded, verb="train")       # refuses what cannot be; changes nothing
    with enter(Path("runs"), "demo", loaded, verb="train", identity={"device": "cpu"}) as run: ...

The same command begins a run and goes on with it, whatever ended it. What is refused: a folder that another process
writes, one that holds something else, a run that is finished, and settings that do not fit what was learnt so far.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from groupwise.config import LoadedRecipe
from groupwise.errors import FinishedError, RunError
from groupwise.runs import disk, lock, names
from groupwise.runs.changes import Change, changed_settings, refuse
from groupwise.runs.files import cannot_write, read_file, write_text
from groupwise.runs.folder import RunFolder
from groupwise.runs.handed_on import made_here, refuse_links
from groupwise.runs.identity import now
from groupwise.runs.redaction import redact_text

Verb: TypeAlias = Literal["train", "sft"]

_LARGEST_RECIPE = 16 << 20

_OF_A_BEGINNING = {"lock", "recipe.toml"}
"""What is in the folder of a run that was killed before it had its run.json."""


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where a run is, whether it begins there, and what is different from when it was last here."""

    path: Path
    begins: bool
    changes: tuple[Change, ...] = ()


def look(root: Path, name: str, loaded: LoadedRecipe, verb: Verb) -> Entrance:
    """Refuse early what `enter` would refuse, before a model is loaded for it."""
    path = home(root) / names.checked(name)
    make_folder(path)
    if (path / "lock").exists() and not lock.is_left_behind(path / "lock"):
        raise RunError(f"{lock.explain(path / 'lock')}. To train beside it, choose another name (run.name=...)")
    return _looked(path, loaded, verb)


def enter(root: Path, name: str, loaded: LoadedRecipe, verb: Verb, identity: Mapping[str, Any]) -> RunFolder:
    """Lock the folder and begin there, or take up what is there. `identity` adds to `run.json`."""
    path = home(root) / names.checked(name)
    make_folder(path)
    lock.take(path / "lock")
    try:
        entrance = _looked(path, loaded, verb)
        run = RunFolder(path)
        facts = {**identity, "verb": verb}
        if entrance.begins:
            run.begin(name, loaded, facts)
        else:
            _take_up(run, loaded, facts, entrance.changes)
    except BaseException:
        lock.release(path / "lock")
        raise
    return run


def _take_up(run: RunFolder, loaded: LoadedRecipe, facts: Mapping[str, Any], changes: tuple[Change, ...]) -> None:
    for leftover in [*run.path.glob(".*.tmp"), *run.path.glob("*/.*.tmp"), *run.path.glob(".*.part")]:
        disk.remove_tree(leftover)
    run.checkpoints.heal()
    attempt = {
        "started": now(),
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "status_before": run.identity.get("status"),
        "changes": [str(change) for change in changes],
    }
    earlier = run.identity.get("attempts")
    attempts = [*(earlier if isinstance(earlier, list) else []), attempt]
    write_text(run.path / "recipe.toml", redact_text(loaded.to_toml()))
    run.record({**facts, "status": "running", "ended": None, "error": None, "attempts": attempts})


def _looked(path: Path, loaded: LoadedRecipe, verb: Verb) -> Entrance:
    entries = sorted(entry.name for entry in path.iterdir())
    strange = [name for name in entries if name not in _OF_A_BEGINNING and not name.startswith(".")]
    if not strange:
        return Entrance(path, begins=True)
    if "run.json" not in entries:
        raise RunError(
            f"{path} is not empty (it has {', '.join(strange[:3])}) and holds no run; nothing in it will be touched. "
            "Ways out: choose another name (run.name=...), or delete that folder"
        )
    run = RunFolder.open(path)
    facts = run.identity
    if "id" not in facts or "verb" not in facts:
        raise RunError(
            f"{path} holds a run of an older groupwise, which kept nothing to go on from. Ways out: choose another "
            "name (run.name=...), or delete that folder"
        )
    if facts["verb"] != verb:
        raise RunError(
            f"{path} was begun with `groupwise {facts['verb']}`, so `groupwise {verb}` cannot go on with it: "
            "choose another name (run.name=...)"
        )
    if not made_here(path, facts):
        refuse_links(path)
    changes = _changes(path, loaded)
    refuse(changes, str(path))
    total = loaded.recipe.train.steps if verb == "train" else loaded.recipe.sft.steps
    done = run.checkpoints.pointed("latest")
    if facts.get("status") == "finished" and (not changes or done is None or done >= total):
        raise FinishedError(
            f"{path} is finished{'' if done is None else f' (step {done} of {total})'}, and nothing in it will be "
            f"overwritten. Ways out: raise {verb}.steps to go on, choose another name (run.name=...) to begin anew, or "
            "delete that folder"
        )
    return Entrance(path, begins=False, changes=tuple(changes))


def _changes(path: Path, loaded: LoadedRecipe) -> list[Change]:
    """Both as they are written, without secrets."""
    try:
        before = read_file(path / "recipe.toml", most=_LARGEST_RECIPE).decode()
        return changed_settings(before, redact_text(loaded.to_toml()))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(
            f"cannot read {path / 'recipe.toml'}, the recipe that the run began with: {error}. Put it back, or choose "
            "another name (run.name=...)"
        ) from error


def home(root: Path) -> Path:
    """`~/runs` as every shell reads it. (pyarrow would, too, and write its tables elsewhere than the rest is.)"""
    try:
        return root.expanduser()
    except RuntimeError as error:
        raise RunError(f"run.folder = {str(root)!r} cannot name a folder: {error}; choose another") from error


def make_folder(path: Path) -> None:
    """The folder of a run."""
    try:
        disk.make_folder(path, parents=True)
        os.scandir(path).close()
    except OSError as error:
        raise RunError(cannot_write(path, error)) from error
    except ValueError as error:  # a NUL or a lone surrogate in run.folder
        raise RunError(f"run.folder = {str(path.parent)!r} cannot name a folder: {error}; choose another") from error
