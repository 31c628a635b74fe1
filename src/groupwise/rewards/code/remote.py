"""Programs on a sandbox server that speaks SandboxFusion's `/run_code`: one POST of JSON per program.

    {"code": ..., "language": "python", "stdin": ..., "run_timeout": 4, "memory_limit_MB": 512}
    {"status": "Success", "run_result": {"status": "Finished", "return_code": 0, "stdout": ..., "stderr": ...}}

A server that does not answer, or says that its own sandbox failed, leaves the outcome unknown.
"""

from __future__ import annotations

import json
import urllib.request
from typing import Any, cast

from groupwise.rewards.code.outcome import Limits, Outcome

_SLACK_SECONDS = 30.0
_MORE_BYTES = 1 << 20


def run_remotely(url: str, text: str, stdin: str, limits: Limits) -> Outcome:
    """Run a script there; blocks until the server has answered or is given up."""
    asked = {
        "code": text,
        "language": "python",
        "stdin": stdin,
        "compile_timeout": limits.wall_seconds,
        "run_timeout": limits.cpu_seconds,
        "memory_limit_MB": limits.memory_mb,
    }
    request = urllib.request.Request(
        url.rstrip("/") + "/run_code", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=limits.wall_seconds + _SLACK_SECONDS) as reply:
            told: Any = json.loads(reply.read(6 * (limits.output_kb << 10) + _MORE_BYTES))
    except (OSError, ValueError) as error:
        return Outcome("lost", detail=f"the sandbox server did not answer: {error}")
    return _outcome(told, limits)


def _outcome(told: Any, limits: Limits) -> Outcome:
    reply = cast(dict[str, Any], told) if isinstance(told, dict) else {}
    result: Any = reply.get("run_result")
    if reply.get("status") not in ("Success", "Failed") or not isinstance(result, dict):
        return Outcome("lost", detail=f"the sandbox server failed: {str(reply.get('message') or told)[:200]}")
    ran = cast(dict[str, Any], result)
    stdout, stderr = str(ran.get("stdout") or ""), str(ran.get("stderr") or "")
    seconds = float(ran.get("execution_time") or 0.0)
    if ran.get("status") == "TimeLimitExceeded":
        return Outcome("cpu", stdout, stderr[-2000:], wall_seconds=seconds)
    if ran.get("status") != "Finished":
        return Outcome("lost", detail=f"the sandbox server says {str(ran.get('status'))[:80]!r} of the program")
    if len(stdout) > limits.output_kb << 10:
        return Outcome("output", stdout[: limits.output_kb << 10], wall_seconds=seconds)
    code = ran.get("return_code")
    end = "finished" if code == 0 else "crashed"
    return Outcome(end, stdout, stderr[-2000:], wall_seconds=seconds, detail="" if code == 0 else f"exit status {code}")
