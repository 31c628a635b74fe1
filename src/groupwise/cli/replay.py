"""`groupwise replay RUN --step N`: compute a recorded step again, and report what comes out otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from groupwise.cli.findings import Finding, tell

if TYPE_CHECKING:
    from groupwise.training.replay import Compared


def replay(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    step: Annotated[int | None, typer.Option(metavar="N", min=1, help="A recorded step.")] = None,
    bad_step: Annotated[int | None, typer.Option(metavar="N", min=1, help="A step that was refused.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Say it as JSON.")] = False,
) -> None:
    """Compute a recorded step again from the run folder: rewards, completions, advantages, loss and gradient norm. The
    weights before it are those of the nearest checkpoint, and what was recorded since is learnt again. A refused step
    is done again from what was kept of it.

    Ends with exit code 1 if something differs.
    """
    from groupwise.errors import RunError

    if (step is None) == (bad_step is None):
        raise RunError("say which: --step N for a recorded step, or --bad-step N for one that was refused")
    tell(_findings(run, step, bad_step), as_json_text=json)


def _findings(path: Path, step: int | None, bad_step: int | None) -> Iterator[Finding]:
    from groupwise.runs.folder import RunFolder
    from groupwise.training.replay import replay_bad_step, replay_step

    run = RunFolder.open(path.expanduser())
    compared = replay_step(run, step) if step is not None else iter([replay_bad_step(run, bad_step or 0)])
    yield from map(_finding, compared)


def _finding(compared: Compared) -> Finding:
    if compared.note:
        return Finding(compared.what, "ok", compared.note, values={"compared": compared.count})
    values = {"compared": compared.count, "different": compared.differing}
    if compared.same:
        return Finding(compared.what, "ok", f"{compared.count:,} compared, all the same", values=values)
    lines = "\n".join(compared.different)
    text = f"{compared.differing:,} of {compared.count:,} differ:\n{lines}"
    cure = "was the reward function, the data, a library or the machine another one? run.json has the versions"
    return Finding(compared.what, "error", text, cure, values)
