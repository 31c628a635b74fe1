"""What was measured, kept: one JSON file, an entry for each table's row, each with when, where and of what.

A run replaces the entries that it measured and leaves the others. What depends on the machine has a file for each kind
of machine, in a folder `measured`.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

PACKAGES = ("torch", "transformers", "peft")


class Results:
    """Example: `of_this_machine(Path("docs")).put("compare", "W1", {...})`"""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.stem
        try:
            self.parts: dict[str, dict] = json.loads(path.read_text()) if path.is_file() else {}
        except ValueError as error:
            sys.exit(f"{path} is not JSON ({error}): mend or remove it")

    def put(self, part: str, name: str, values: dict, command: str) -> None:
        """Keep an entry. It is on disk at once: what was measured is not lost to what comes after."""
        self.parts.setdefault(part, {})[name] = {**values, "stamp": stamp(), "command": command}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self.parts, indent=1) + "\n")

    def part(self, name: str) -> dict[str, dict]:
        """The entries of a part."""
        return self.parts.get(name, {})

    def machine(self) -> str:
        """Where the newest entry was measured."""
        stamps = [entry["stamp"] for part in self.parts.values() for entry in part.values()]
        return sorted(stamps, key=lambda stamp: stamp["date"])[-1]["machine"]


def of_this_machine(folder: Path) -> Results:
    """What was measured on machines of this kind."""
    kind = re.sub(r"\((R|TM)\)", "", machine()).split(", ")[:2]
    return Results(folder / "measured" / (re.sub(r"[^a-z0-9]+", "-", " ".join(kind).lower()) + ".json"))


def everywhere(folder: Path) -> list[Results]:
    """What was measured, by kind of machine."""
    return [Results(path) for path in sorted((folder / "measured").glob("*.json"))]


def stamp() -> dict[str, str]:
    """Date, commit, machine and versions."""
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "versions": f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES),
    }


def commit() -> str:
    """The commit that is checked out, with a plus if files differ from it."""
    try:
        name = _git("rev-parse", "--short", "HEAD")
        return f"{name}+" if _git("status", "--porcelain", "--", "src") else name
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    return done.stdout.strip()


def machine() -> str:
    """Processor, cores and memory."""
    model, cpuinfo = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB"
