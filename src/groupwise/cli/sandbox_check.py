"""The doctor's line about the code sandbox: found by starting it and trying to break out."""

from __future__ import annotations

from collections.abc import Iterator

from groupwise.cli.findings import Finding


def sandbox() -> Iterator[Finding]:
    """The boundary that programs would run behind. Without one only code rewards are in the way, not every run."""
    from groupwise.rewards.code import detect

    boundary, server = detect()
    if server is not None:
        server.close()
    text = "\n".join((f"code sandbox: {boundary.summary}", *boundary.reasons))
    values = {"level": boundary.level, "landlock_abi": boundary.abi, "layers": list(boundary.layers.names)}
    yield Finding("sandbox", "warning" if boundary.level == "none" else "ok", text, boundary.cure, values)
