"""What `groupwise train` says before the first step of what `groupwise check` knows: only what is not as it should be.

The problems, the prompts and the disk, which cost nothing to look at. That prompts are too long, or that no problems
are held out, the training says itself. Rewards are not tried: they may cost money, and may remember what they were
asked. The memory is tried for real, by the preflight.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from groupwise.cli.check_data import overlaps, prompt
from groupwise.cli.check_plan import disk
from groupwise.cli.findings import Finding

if TYPE_CHECKING:
    from groupwise.training.build import Parts


def remarks(parts: Parts) -> Iterator[Finding]:
    """Nothing, for most runs. None of them ends the run."""
    for look in (overlaps, prompt, disk):
        yield from (finding for finding in look(parts) if finding.level != "ok")
