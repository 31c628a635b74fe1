"""What belongs to a checkpoint, and whether all of it is there as it was written.

MANIFEST.json names every file with its size and SHA-256, the run and the step. It is written last, and holds a digest
of itself. `faults` finds what is wrong and names it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from groupwise.runs.files import read_file

NAME = "MANIFEST.json"
_FORMAT = 1
_PIECE = 1 << 22


class DamagedError(Exception):
    """A checkpoint that is not what was written. Says which file and how."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Size and digest of one file."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a checkpoint is made of. `run` is the identity that `run.json` holds, `files` go by their path inside."""

    run: str
    step: int
    files: Mapping[str, FileFacts]

    def to_json(self) -> bytes:
        """As it is written."""
        body = {
            "format": _FORMAT,
            "run": self.run,
            "step": self.step,
            "files": {name: {"bytes": facts.size, "sha256": facts.sha256} for name, facts in self.files.items()},
        }
        return (json.dumps({**body, "sha256": _digest_of(body)}, indent=1) + "\n").encode()

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a checkpoint; `DamagedError` if it is not one, or not as it was written."""
        try:
            content: Any = json.loads(read_file(folder / NAME))
        except FileNotFoundError as error:
            raise DamagedError(f"{NAME} is missing") from error
        except (OSError, ValueError, RecursionError) as error:
            raise DamagedError(f"{NAME} cannot be read ({error})") from error
        try:
            return cls._of(cast("dict[str, Any]", content))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedError(f"{NAME} is not a manifest ({error!r})") from error

    @classmethod
    def _of(cls, content: dict[str, Any]) -> Manifest:
        digest = content.pop("sha256")
        if digest != _digest_of(content):
            raise DamagedError(f"{NAME} was changed after it was written")
        if content["format"] != _FORMAT:
            raise DamagedError(f"{NAME} has format {content['format']}, this groupwise knows {_FORMAT}")
        files = {str(name): FileFacts(int(f["bytes"]), str(f["sha256"])) for name, f in content["files"].items()}
        if astray := next((name for name in files if not _stays_inside(name)), None):
            raise DamagedError(f"{NAME} names a file outside the checkpoint: {astray!r}")
        return cls(str(content["run"]), int(content["step"]), files)

    def check(self, folder: Path, *, run: str, step: int, thoroughly: bool = True) -> None:
        """Raise a `DamagedError` that names the first file that is missing, cut short or changed. Without `thoroughly`
        sizes are compared, not digests."""
        if self.run != run:
            raise DamagedError(f"{NAME} belongs to another run ({self.run[:8]}, this one is {run[:8]})")
        if self.step != step:
            raise DamagedError(f"{NAME} is that of step {self.step}")
        for name, facts in self.files.items():
            path = folder / name
            if not path.is_file():
                raise DamagedError(f"{name} is missing")
            if (size := path.stat().st_size) != facts.size:
                raise DamagedError(f"{name} has {size:,} bytes, {facts.size:,} were written")
            if thoroughly and digest_of_file(path) != facts.sha256:
                raise DamagedError(f"{name} was changed after it was written (SHA-256)")


def digest_of_file(path: Path) -> str:
    """SHA-256 of what is in a file."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OSError as error:
        raise DamagedError(f"{path.name} cannot be read ({error})") from error
    return digest.hexdigest()


def _digest_of(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and ":" not in name
