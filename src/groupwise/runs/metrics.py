"""`metrics.jsonl`: one row of numbers a step, appended; a page may follow it while the run goes on.

    log = MetricsLog(folder / "metrics.jsonl")
    log.append(1, {"reward": 0.25, "kl": float("nan")})     # {"step": 1, "reward": 0.25, "kl": null}
    log.series("reward")                                    # [(1, 0.25)]

NaN and infinities are written as `null`, for JSON has neither; that a number was not finite stays visible, which of the
three it was does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from groupwise.runs.files import append_row, read_rows


class MetricsLog:
    """Appends and reads one `metrics.jsonl`. Holds no open file, so that readers need no writer and none is leaked."""

    def __init__(self, path: Path, append: Callable[[Path, Mapping[str, Any]], None] = append_row) -> None:
        self.path, self._append = path, append

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the row of a step; it can be read when this returns."""
        self._append(self.path, {"step": step, **{name: value for name, value in metrics.items() if name != "step"}})

    def read(self) -> list[dict[str, float | None]]:
        """All rows, oldest first, each with its `step`. A torn last line (a run was killed) is skipped."""
        return read_rows(self.path)

    def series(self, name: str) -> list[tuple[int, float]]:
        """`(step, value)` of one metric, where it was there and finite."""
        points: list[tuple[int, float]] = []
        for row in self.read():
            step, value = row.get("step"), row.get(name)
            if step is not None and value is not None:
                points.append((int(step), value))
        return points
