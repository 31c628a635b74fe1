"""`groupwise doctor --graders`: ten thousand hostile texts through the built-in rewards."""

from __future__ import annotations

from collections.abc import Iterator

from groupwise.cli.findings import Finding


def graders(count: int) -> Iterator[Finding]:
    """Grade so many hostile texts, and say what held."""
    from groupwise.rewards.graders_proof import prove

    proof = prove(count)
    values = {"texts": proof.texts, "seconds": proof.seconds, "before": proof.before, "after": proof.after}
    told = (
        f"{proof.texts:,} hostile texts in {proof.seconds:.0f} s: {proof.limited:,} ran into a limit, "
        f"{proof.unknown} could not be graded; {proof.before:,.0f} ordinary answers a second before, "
        f"{proof.after:,.0f} after"
    )
    yield Finding("graders", "ok", told, values=values)
    for complaint in proof.complaints:
        yield Finding("graders", "error", complaint, "run it on an idle machine; if it stays, tell us")
