"""`groupwise doctor`: is this machine fit for a run, and what would mend it?

    groupwise doctor                        python, torch, device, memory, disk, hub, extras: a line each
    groupwise doctor --json                 the same for programs
    groupwise doctor --resume recipe.toml   a run of it, killed and taken up again, ends as if it had not been
    groupwise doctor --invariance NAME      is the gradient the same however it is computed? on this recipe or model
    groupwise doctor --graders 10000        hostile texts through the built-in rewards: do they hold?

One more fact: a function that yields `Finding`s, in a module of its own, and an entry in `CHECKS`. One more proof on
demand (`--name VALUE`): a field of `Doctor` and an entry in `PROOFS` under the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from groupwise.cli import invariance_proof, machine_checks, package_checks, resume_proof, sandbox_check
from groupwise.cli.findings import Finding, tell
from groupwise.cli.grader_checks import graders

CHECKS: tuple[Callable[[], Iterable[Finding]], ...] = (
    machine_checks.python,
    package_checks.required,
    machine_checks.device,
    machine_checks.memory,
    machine_checks.disk,
    machine_checks.hub,
    package_checks.extras,
    sandbox_check.sandbox,
)
"""In the order in which they are told. None of them may take long, or need the network."""

PROOFS: Mapping[str, Callable[[Any], Iterable[Finding]]] = {
    "resume": resume_proof.resume,
    "invariance": invariance_proof.invariant,
    "graders": graders,
}
"""By the name of a field of `Doctor`: what runs, in place of `CHECKS`, when that option was given. It gets its value,
and imports what it needs when it is called."""


@dataclass(frozen=True, slots=True)
class Doctor:
    """The options of `groupwise doctor`."""

    json: Annotated[bool, typer.Option("--json", help="Say it as JSON.")] = False
    resume: Annotated[
        str, typer.Option("--resume", metavar="RECIPE", help="Prove that a killed run of this recipe goes on exactly.")
    ] = ""
    invariance: Annotated[
        str | None,
        typer.Option(metavar="RECIPE|RUN|MODEL", help="Prove that the gradient is the same however it is computed."),
    ] = None
    graders: Annotated[
        int, typer.Option("--graders", min=0, max=10_000_000, help="Put so many hostile texts to the graders: 10000.")
    ] = 0


def doctor(options: Doctor) -> None:
    """Look at this machine: what a run needs, whether it is here, and the command that mends what is not.

    Ends with exit code 1 if something stands in the way of every run.
    """
    tell(examined(options), as_json_text=options.json)


def examined(options: Doctor) -> Iterator[Finding]:
    """The proofs that were asked for, or else every check. A check that fails itself is a finding too."""
    asked = {name: value for name, value in asdict(options).items() if name in PROOFS and value}
    for name, value in asked.items():
        yield from PROOFS[name](value)
    if asked:
        return
    for check in CHECKS:
        try:
            yield from check()
        except Exception as error:  # a broken driver must not hide the other lines
            yield Finding(
                check.__name__,
                "error",
                f"could not be looked at: {type(error).__name__}: {error}",
                "mend what it names",
            )
