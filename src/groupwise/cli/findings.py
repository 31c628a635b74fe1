"""What `doctor` and `check` found: one line a fact, and below what is wrong the command or setting that cures it.

ok       python    3.11.9
warning  device    an NVIDIA GPU is here, but this torch was built without CUDA
                   cure: pip install torch --index-url https://download.pytorch.org/whl/cu128
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from rich.text import Text

from groupwise.errors import GroupwiseError
from groupwise.runs.text import safe_text

if TYPE_CHECKING:
    from rich.console import Console

Level: TypeAlias = Literal["ok", "warning", "error"]
_STYLES: Mapping[Level, str] = {"ok": "green", "warning": "yellow", "error": "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact, how bad it is, what cures it, and, for programs, its numbers.

    Example: `Finding("disk", "warning", "1.2 GB free in runs", "free some space, or set run.folder")`
    """

    about: str
    level: Level
    text: str
    cure: str = ""
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])


def show(findings: Iterable[Finding], console: Console) -> list[Finding]:
    """Print each as it comes, so that nobody waits before an empty screen; returns them all."""
    shown: list[Finding] = []
    for finding in findings:
        shown.append(finding)
        console.print(_lines(finding), soft_wrap=not console.is_terminal)
    return shown


def as_json(findings: Iterable[Finding]) -> tuple[list[Finding], str]:
    """All of them, and the JSON that says the same: `{"ok": false, "findings": [{"about": ..., ...}, ...]}`."""
    from groupwise.runs.files import to_json

    found = list(findings)
    rows = [asdict(finding) for finding in found]
    whole = {"ok": not errors(found), "findings": rows}
    return found, json.dumps(json.loads(to_json(whole)), indent=2)


def errors(findings: Sequence[Finding]) -> list[Finding]:
    """Those that stand in the way of a run."""
    return [finding for finding in findings if finding.level == "error"]


def tell(findings: Iterable[Finding], *, as_json_text: bool) -> list[Finding]:
    """Say it on standard output, for people or for programs; an error among them ends the command with exit code 1."""
    from groupwise.cli.progress import terminal

    if as_json_text:
        found, text = as_json(findings)
        terminal().print(text, soft_wrap=True)
    else:
        found = show(findings, terminal())
    wrong = errors(found)
    if wrong:
        names = ", ".join(dict.fromkeys(finding.about for finding in wrong))
        raise GroupwiseError(f"{len(wrong)} error{'s' if len(wrong) > 1 else ''} to mend before a run: {names}")
    return found


def _lines(finding: Finding) -> Text:
    first, *more = safe_text(finding.text).split("\n")
    text = Text.assemble((f"{finding.level:<8}", _STYLES[finding.level]), (f"{finding.about:<12}", "bold"), first)
    if finding.cure:
        more.append(f"cure: {safe_text(finding.cure)}")
    for line in more:
        text.append(f"\n{'':<20}{line}")
    return text
