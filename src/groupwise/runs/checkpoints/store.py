"""The checkpoints of one run: written so that a kill at any moment leaves whole ones only, found again, and thinned.

    store = Checkpoints(run.path / "checkpoints", run="3f2a...")
    store.write(50, Contents(files={"state.json": b"{}"}, tensors={"state.safetensors": {"moments.0": tensor}}))
    store.keep_only(2)
    found = store.newest()                # Found(checkpoint=..., faults=[])
    found.checkpoint.state()

Names that begin with a dot are in the making or on their way out; `heal` clears them away.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from groupwise.errors import RunError
from groupwise.runs import disk
from groupwise.runs.checkpoints.contents import as_written
from groupwise.runs.checkpoints.manifest import NAME, DamagedError, FileFacts, Manifest
from groupwise.runs.checkpoints.tensors import file_of, read_tensors
from groupwise.runs.checkpoints.tree import Tree, put_together, taken_apart
from groupwise.runs.files import cannot_write, write_text

if TYPE_CHECKING:
    from torch import Tensor

Pointer: TypeAlias = Literal["latest", "best"]

_FOLDER = re.compile(r"step_(\d{6,})")
_STATE, _TENSORS = "state.json", "state.safetensors"
_DAMAGED = "damaged-"


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into a checkpoint, by path inside it: files as they are, and tensors that become a file."""

    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    tensors: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict[str, "Mapping[str, Tensor]"])

    def with_state(self, state: Tree) -> Contents:
        """The same and a run's state. Example: `contents.with_state({"step": 3, "moments": [tensor]})`"""
        plain, tensors = taken_apart(state)
        files = {**self.files, _STATE: json.dumps(plain, allow_nan=False).encode()}
        return Contents(files, {**self.tensors, _TENSORS: tensors})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One that is whole."""

    path: Path
    step: int

    @property
    def model(self) -> Path:
        """The folder of the model, which transformers (with LoRA: peft) loads."""
        return self.path / "model"

    def state(self) -> Tree:
        """What `with_state` was given."""
        try:
            plain = json.loads((self.path / _STATE).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"cannot read {self.path / _STATE}: {error}") from error
        with as_written(self.path):
            return put_together(plain, read_tensors(self.path / _TENSORS))


@dataclass(frozen=True, slots=True)
class Found:
    """The newest whole checkpoint, and what is wrong with newer ones, in sentences."""

    checkpoint: Checkpoint | None
    faults: tuple[str, ...] = ()


class Checkpoints:
    """Writes and finds the checkpoints in a folder. `run` is the identity of the run: those of another do not count."""

    def __init__(self, folder: Path, run: str) -> None:
        self.folder = folder
        self._run = run

    # --- writing -----------------------------------------------------------------------------------------------------

    def write(self, step: int, contents: Contents) -> Checkpoint:
        """Write a whole checkpoint; an older one of the same step is replaced by it, whole by whole."""
        target = self.path(step)
        beside, old = (self.folder / f".{target.name}.{ending}" for ending in ("part", "old"))
        try:
            disk.make_folder(self.folder)
            for leftover in (beside, old):
                if leftover.exists():
                    disk.remove_tree(leftover)
            self._fill(beside, step, contents)
            if target.exists():
                disk.rename(target, old)
            disk.rename(beside, target)
            disk.sync(self.folder)
            self.point("latest", step)
        except OSError as error:  # a full disk is a reason to give back what was just taken of it
            with suppress(OSError):
                disk.remove_tree(beside)
            raise error if isinstance(error, RunError) else RunError(cannot_write(target, error)) from error
        with suppress(OSError):
            if old.exists():
                disk.remove_tree(old)
        return Checkpoint(target, step)

    def point(self, pointer: Pointer, step: int) -> None:
        """Let `latest` or `best` name the checkpoint of this step."""
        write_text(self.folder / pointer, self.path(step).name + "\n")

    def keep_only(self, count: int) -> None:
        """Remove all but the newest `count` whole ones and the best. What is not whole does not count, and goes when so
        many newer ones are whole."""
        whole = [step for step in self.steps() if self._looks_whole(step)]
        kept = {*whole[-count:], self.pointed("best")}
        doomed = [self.path(step) for step in self.steps() if step not in kept and len(whole) >= count]
        if len(whole) >= count:
            doomed += self._named(lambda name: name.startswith(_DAMAGED))
        for path in doomed:
            self._remove(path)

    def heal(self) -> None:
        """Clear away what a killed process left in the middle. Only for the one who holds the run's lock."""
        for path in self._named(lambda name: name.startswith(".")):
            target = self.folder / path.name[1:].removesuffix(".old")
            if path.name.endswith(".old") and _FOLDER.fullmatch(target.name) and not target.exists():
                disk.rename(path, target)  # killed between the two renames of `write`
            else:
                disk.remove_tree(path)

    def set_aside(self, step: int) -> None:
        """Rename a damaged one, so that it is not looked at again."""
        aside = self.folder / f"{_DAMAGED}{self.path(step).name}"
        if aside.exists():
            disk.remove_tree(aside)
        disk.rename(self.path(step), aside)

    def forget_after(self, step: int) -> None:
        """Remove the checkpoints of later steps: the run goes on from here."""
        for later in self.steps():
            if later > step:
                self._remove(self.path(later))

    # --- reading -----------------------------------------------------------------------------------------------------

    def steps(self) -> list[int]:
        """The steps of all checkpoints, whole or not."""
        return sorted(int(match[1]) for path in self._named(lambda _: True) if (match := _FOLDER.fullmatch(path.name)))

    def newest(self, set_aside: bool = False, up_to: int | None = None) -> Found:
        """The newest one (of steps `up_to` this one) whose every file is what was written; `set_aside` renames newer
        ones that are not."""
        faults: list[str] = []
        for step in reversed([step for step in self.steps() if up_to is None or step <= up_to]):
            path = self.path(step)
            try:
                Manifest.read(path).check(path, run=self._run, step=step)
            except DamagedError as damage:
                faults.append(f"{path}: {damage}")
                if set_aside:
                    self.set_aside(step)
            else:
                return Found(Checkpoint(path, step), tuple(faults))
        return Found(None, tuple(faults))

    def last_whole(self) -> int | None:
        """The step of the newest that looks whole, by the sizes of its files."""
        return next((step for step in reversed(self.steps()) if self._looks_whole(step)), None)

    def pointed(self, pointer: Pointer) -> int | None:
        """The step that `latest` or `best` names; `None` if it names none that is there."""
        file = self.folder / pointer
        try:
            name = file.read_text(encoding="utf-8").strip() if file.is_file() else ""  # a pipe would be waited for
        except (OSError, ValueError):
            return None
        match = _FOLDER.fullmatch(name)
        return int(match[1]) if match and (self.folder / name).is_dir() else None

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.folder / f"step_{step:06d}"

    # -----------------------------------------------------------------------------------------------------------------

    def _fill(self, folder: Path, step: int, contents: Contents) -> None:
        buffers: dict[str, Callable[[], Iterable[disk.Buffer]]] = {}
        buffers |= {name: partial(list[disk.Buffer], [content]) for name, content in contents.files.items()}
        buffers |= {name: partial(file_of, tensors) for name, tensors in contents.tensors.items()}
        facts: dict[str, FileFacts] = {}
        disk.make_folder(folder)
        for name, make in buffers.items():
            disk.make_folder((folder / name).parent, parents=True)
            digest = hashlib.sha256()
            size = disk.write_file(folder / name, make(), digest.update)
            facts[name] = FileFacts(size, digest.hexdigest())
            disk.sync(folder / name)
        disk.write_file(folder / NAME, [Manifest(self._run, step, facts).to_json()])
        disk.sync(folder / NAME)
        for inside in sorted({(folder / name).parent for name in facts} | {folder}, reverse=True):
            disk.sync(inside)

    def _looks_whole(self, step: int) -> bool:
        path = self.path(step)
        try:
            Manifest.read(path).check(path, run=self._run, step=step, thoroughly=False)
        except DamagedError:
            return False
        return True

    def _remove(self, path: Path) -> None:
        """By another name first: what is half removed must not look like a checkpoint."""
        gone = self.folder / f".{path.name}.gone"
        if gone.exists():
            disk.remove_tree(gone)
        disk.rename(path, gone)
        disk.remove_tree(gone)

    def _named(self, wanted: Callable[[str], bool]) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if wanted(path.name))
