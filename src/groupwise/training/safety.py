"""A run that goes on, here or elsewhere, keeps programs behind a boundary no weaker than at its beginning."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, cast

from groupwise.errors import RunError
from groupwise.rewards.code import Boundary, is_lower


def check_no_weaker(boundary: Boundary | None, identity: Mapping[str, Any], run: str) -> None:
    """RunError if `run.json` has a level of the sandbox that is above what there is now.

    Example: begun behind STRONG, taken up on a machine with GOOD -> RunError that names the machine
    """
    recorded = identity.get("sandbox")
    if boundary is None or not isinstance(recorded, Mapping):
        return
    before = cast("Mapping[str, Any]", recorded)
    if is_lower(boundary.level, str(before.get("level"))):
        raise RunError(
            f"{run} began with programs behind {before.get('boundary')}; on this machine, {socket.gethostname()}, it "
            f"would be {boundary.summary}. Nothing was run. Ways out: go on where it began, mend what "
            "`groupwise doctor` names here, or begin another run (run.name=...)"
        )
