"""What a run is and where it ran: the first half of `run.json`. Reads installed versions without importing anything.

    identity(["groupwise", "train", "recipe.toml"])
    # {"groupwise": "0.1.0", "python": "3.11.9", "versions": {"torch": "2.13.0", ...}, "platform": "Linux-...", ...}

The environment is not part of it: it holds secrets. Arguments are written without theirs.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from groupwise import __version__
from groupwise.runs.redaction import redact_arguments

_PACKAGES = ("torch", "transformers", "tokenizers", "peft", "datasets", "safetensors", "numpy", "pyarrow", "pydantic")


def identity(arguments: Sequence[str]) -> dict[str, Any]:
    """Versions, machine, process and command line, all of it plain JSON."""
    return {
        "groupwise": __version__,
        "python": platform.python_version(),
        "versions": {package: version(package) for package in _PACKAGES},
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "command": redact_arguments(arguments),
    }


def version(package: str) -> str | None:
    """The installed version of a package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def now() -> str:
    """This moment in UTC, `2026-03-01T12:00:00+00:00`."""
    return datetime.now(UTC).isoformat("T", "seconds")
