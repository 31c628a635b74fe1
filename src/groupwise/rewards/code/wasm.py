"""Programs in CPython compiled to WebAssembly: no files, no network, no processes, on any system that has the wheel.

The wheel (`pyeryx`, imported as `eryx`) exists for Python 3.12 and newer. It runs scripts; unit tests need two
processes that talk to each other, which it does not offer, so they ask for another boundary.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from typing import Any

from groupwise.rewards.code.outcome import Limits, Outcome

_PREFACE = "import io, json, sys\nsys.stdin = io.StringIO(json.loads({stdin!r}))\n"


def why_no_wasm() -> str:
    """Why programs cannot run in WebAssembly here; "" if they can."""
    if importlib.util.find_spec("eryx") is not None:
        return ""
    if sys.version_info < (3, 12):
        running = ".".join(map(str, sys.version_info[:2]))
        return f"wasm: the wheel is for Python 3.12 and newer, this is {running}"
    return "wasm: not installed (pip install 'groupwise[wasm]')"


def run_in_wasm(text: str, stdin: str, limits: Limits) -> Outcome:
    """Run a script; blocks until it has ended. Its clock is wall time, for WebAssembly has no other."""
    eryx: Any = importlib.import_module("eryx")
    allowed = eryx.ResourceLimits(
        execution_timeout_ms=int(limits.cpu_seconds * 1000), max_memory_bytes=limits.memory_mb << 20
    )
    began = time.monotonic()
    try:
        result = eryx.Sandbox(resource_limits=allowed).execute(_PREFACE.format(stdin=json.dumps(stdin)) + text)
    except Exception as error:
        passed = time.monotonic() - began
        late = passed >= limits.cpu_seconds
        return Outcome(
            "cpu" if late else "crashed", wall_seconds=passed, detail=f"{type(error).__name__}: {error}"[:300]
        )
    passed = time.monotonic() - began
    stdout = str(result.stdout)
    end = "output" if len(stdout) > limits.output_kb << 10 else "finished"
    return Outcome(end, stdout, wall_seconds=passed)
