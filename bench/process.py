"""What one measuring process says about itself, and how it says it. Standard library only."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

from workloads import number_of, reward


def peak_megabytes() -> float:
    """The most memory that this process held. `ru_maxrss` may begin with what the parent held: the kernel's own is
    asked where there is one."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Graded:
    """The reward function of a side, which sees all that is to know about the tokens of a step."""

    def __init__(self, group: int) -> None:
        self._group = group
        self.facts: dict = {}

    def __call__(self, prompts, completions, completion_ids, **_) -> list[float]:
        first = prompts[:: self._group]
        self.facts = {
            "drawn": [number_of(text) for text in first],
            "prompts": [len(text) for text in first],
            "lengths": [len(ids) for ids in completion_ids],
        }
        return reward(completions)


class Steps:
    """The steps of a run: seconds from the end of one to the end of the next, and what happened in between.

    `cores` is the processor time over the wall time: far below the number of cores, another process was in the way.
    """

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.begin()

    def begin(self) -> None:
        """The first step begins here."""
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def end(self, **facts) -> None:
        """A step ends here."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        self.rows.append({"seconds": wall, "cores": cpu / wall, "peak_mb": peak_megabytes(), **facts})
        print(f"    step {len(self.rows)}: {wall:.2f} s", flush=True)
        self.begin()

    def write(self, path: Path, **facts) -> None:
        """The result of this process, for the one that started it."""
        path.write_text(json.dumps({"steps": self.rows, "peak_mb": self.rows[-1]["peak_mb"], **facts}))
