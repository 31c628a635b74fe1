"""The process that reasoning-gym runs in, from outside: ask it, with a deadline; kill it when that passes.

    gym = process()
    gym.ask("entries", 60, set="countdown", settings={"seed": 0, "size": 10}, indices=[0])

One process serves all that this program asks. It starts when first asked, anew after it was killed or died, and ends
with the program.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from groupwise.errors import TaskError

_START_SECONDS = 60.0
_LONGEST_ANSWER = 64 << 20


class AskedTooMuchError(Exception):
    """The process did not answer in time, or died of the question."""


class GymProcess:
    """See above. Threads may share it; they take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, do: str, seconds: float, **request: Any) -> Any:
        """What the server answers. A TaskError if it refuses to, an AskedTooMuchError if it does not get there."""
        with self._lock:
            process = self._started()
            try:
                answer = json.loads(self._asked(process, {"do": do, **request}, time.monotonic() + seconds))
            except BaseException:  # an interrupted question leaves an answer that nobody asked for
                self._end()
                raise
        if "error" in answer:
            raise TaskError(str(answer["error"]))
        return answer["ok"]

    def close(self) -> None:
        """End the process, if it runs."""
        with self._lock:
            self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        if find_spec("reasoning_gym") is None:
            raise TaskError(
                "the task 'reasoning_gym' needs a library that is not installed: pip install groupwise[gym]"
            )
        # Nothing of the environment but what Python needs to start: no keys, no tokens.
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV") if name in os.environ}
        source = str(Path(__file__).parents[3])
        kept |= {"PYTHONHASHSEED": "0", "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "groupwise.tasks.gym.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=kept,
            cwd="/",
            start_new_session=True,
        )
        self._asked(self._process, {"do": "names"}, time.monotonic() + _START_SECONDS)
        return self._process

    def _asked(self, process: subprocess.Popen[bytes], request: dict[str, Any], until: float) -> bytes:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            raise AskedTooMuchError("it has ended") from error
        received = bytearray()
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                if not ready.select(max(until - time.monotonic(), 0)):
                    raise AskedTooMuchError("it did not answer in time")
                piece = os.read(process.stdout.fileno(), 1 << 20)
                if not piece or len(received) > _LONGEST_ANSWER:
                    raise AskedTooMuchError("it has ended")
                received += piece
        return bytes(received)

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._process.wait()
        self._process = None


@cache
def process() -> GymProcess:
    """The one of this program."""
    made = GymProcess()
    atexit.register(made.close)
    return made
