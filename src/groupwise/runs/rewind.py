"""Take a run's records back to a step: what was written after it will be written again.

    rewind(Path("runs/demo"), step=50)

Evaluations of that very step stay. Each file is replaced as a whole; a kill in between leaves what another go removes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from groupwise.errors import RunError
from groupwise.runs import disk
from groupwise.runs.files import cannot_write, keep_rows, read_rows

_ROWS = ("metrics.jsonl", "evals.jsonl", "alarms.jsonl")


def rewind(run: Path, step: int, *, evaluations: bool = True) -> None:
    """Forget what is known of later steps; without `evaluations` those of this step, too."""

    def stays(row: dict[str, Any]) -> bool:
        return int(row.get("step", 0)) <= step

    for name in _ROWS:
        keep_rows(run / name, stays if name != "evals.jsonl" or evaluations else lambda _: False)
    answers = {Path(str(row.get("answers"))).name for row in read_rows(run / "evals.jsonl")}
    doomed = [path for path in _files(run / "evals") if path.name not in answers]
    doomed += [path for path in _files(run / "rollouts") if path.stem.isdigit() and int(path.stem) > step]
    for path in doomed:
        try:
            disk.remove(path)
        except OSError as error:
            raise RunError(cannot_write(path, error)) from error


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
