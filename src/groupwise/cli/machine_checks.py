"""The doctor's lines about the machine: Python, device, memory, disk, hub."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from groupwise.cli.findings import Finding

_GB = 1 << 30
_OLDEST_PYTHON = (3, 11)
_LITTLE_MEMORY, _TOO_LITTLE_MEMORY = 4 * _GB, 1 * _GB
_LITTLE_DISK, _TOO_LITTLE_DISK = 5 * _GB, _GB // 2


def python() -> Iterator[Finding]:
    """The interpreter's version and where it is."""
    text = f"{platform.python_version()} at {sys.executable} on {platform.platform()}"
    if sys.version_info < _OLDEST_PYTHON:
        yield Finding("python", "error", text, "groupwise needs Python 3.11 or newer: uv python install 3.12")
    else:
        yield Finding("python", "ok", text)


def device() -> Iterator[Finding]:
    """What `model.device = "auto"` would take, and whether a GPU lies idle because torch cannot use it."""
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            text = f"cuda:{index} {torch.cuda.get_device_name(index)}, {gigabytes(free)} of {gigabytes(total)} free"
            busy = free < total / 2
            cure = "another process holds the rest: see nvidia-smi" if busy else ""
            yield Finding("device", "warning" if busy else "ok", text, cure, {"free": free, "total": total})
        return
    if torch.backends.mps.is_available():
        yield Finding("device", "ok", "mps (Apple GPU)")
        return
    threads = torch.get_num_threads()
    text = f"cpu, {os.cpu_count()} cores, {threads} thread{'s' if threads > 1 else ''}"
    if shutil.which("nvidia-smi") is None and not Path("/dev/nvidia0").exists():
        yield Finding("device", "ok", text)
        return
    versions: Any = torch.version
    built = f"was built for CUDA {versions.cuda}" if versions.cuda else "was built without CUDA"
    yield Finding(
        "device",
        "warning",
        f"{text}; an NVIDIA GPU is here, but this torch ({torch.__version__}) {built} and does not see it",
        "check the driver with nvidia-smi, then: pip install --force-reinstall torch "
        "--index-url https://download.pytorch.org/whl/cu128",
    )


def memory() -> Iterator[Finding]:
    """What this process may have, the container's limit included."""
    from groupwise.training.machine import memory_free, memory_limit

    free, limit = memory_free(), memory_limit()
    text, values = f"{gigabytes(free)} of {gigabytes(limit)} free", {"free": free, "limit": limit}
    if free < _TOO_LITTLE_MEMORY:
        yield Finding("memory", "error", text, "end other programs, or take a larger machine", values)
    elif free < _LITTLE_MEMORY:
        yield Finding("memory", "warning", text, "`groupwise check recipe.toml` says whether it is enough", values)
    else:
        yield Finding("memory", "ok", text, values=values)


def disk() -> Iterator[Finding]:
    """Room where runs are written, and where models are downloaded to."""
    for name, folder in (("runs are written here", Path.cwd()), ("downloads", hub_cache())):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free
        text, values = f"{gigabytes(free)} free in {folder} ({name})", {"free": free, "folder": str(folder)}
        if not os.access(there, os.W_OK):
            yield Finding("disk", "error", f"{there} cannot be written ({name})", "choose another folder", values)
        elif free < _LITTLE_DISK:
            level = "error" if free < _TOO_LITTLE_DISK else "warning"
            yield Finding("disk", level, text, "free some space, or set run.folder (for downloads: HF_HOME)", values)
        else:
            yield Finding("disk", "ok", text, values=values)


def hub() -> Iterator[Finding]:
    """Whether models that need a login can be had. Asks nobody: the token is only looked for, and never shown."""
    import huggingface_hub
    from huggingface_hub.constants import HF_HUB_OFFLINE

    text = "a token is stored: gated and private models can be asked for"
    if not huggingface_hub.get_token():
        text = "not logged in: public models only. For gated ones: hf auth login"
    if HF_HUB_OFFLINE:
        text += ". HF_HUB_OFFLINE is set: only what was downloaded before can be used"
    yield Finding("hub", "ok", text)


def hub_cache() -> Path:
    """Where huggingface_hub keeps what it downloads."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def gigabytes(count: float) -> str:
    """`21.3 GB`, `640 MB` (of 2^30 and 2^20 bytes)."""
    return f"{count / _GB:.1f} GB" if count >= _GB else f"{count / (1 << 20):.0f} MB"
