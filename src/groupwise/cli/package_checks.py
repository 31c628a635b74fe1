"""The doctor's lines about packages: what groupwise needs, its extras, and whether their versions fit each other.

Reads what is installed without importing it, so that a broken package is a line here and not a traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement

from groupwise.cli.findings import Finding
from groupwise.runs.identity import version

OPTIONAL_ENGINES = ("vllm",)
"""Engines that are used where they are installed; no extra of ours pins them."""

_DEVELOPMENT = {"dev", "bench"}


def required() -> Iterator[Finding]:
    """Everything that groupwise cannot do without, by the ranges that it was released with."""
    own = _requirements("groupwise")
    if own is None:
        yield Finding(
            "packages",
            "warning",
            "groupwise runs from its source without being installed, so no versions can be compared",
            "pip install -c constraints.txt -e .",
        )
        return
    wrong = [problem for requirement in own if not requirement.marker if (problem := _problem(requirement))]
    for problem in wrong:
        yield Finding("packages", "error", *problem)
    names = ", ".join(f"{name} {version(name) or 'missing'}" for name in ("torch", "transformers", "peft"))
    if not wrong:
        yield Finding("packages", "ok", f"groupwise {version('groupwise')}, {names}")


def extras() -> Iterator[Finding]:
    """Each extra and engine: whether it is installed, fits our range, and was made for the torch that is here."""
    for extra, requirement in _by_extra():
        problem, installed = _problem(requirement), version(requirement.name)
        if installed is None:
            cure = f'to have it: pip install "groupwise[{extra}]"'
            yield Finding("extra", "ok", f"{extra}: {requirement.name} is not installed; {cure}")
        elif problem:
            yield Finding("extra", "warning", f"{extra}: {problem[0]}", problem[1])
        else:
            yield from _fits(requirement.name, f"{extra}: {requirement.name} {installed}")
    for engine in OPTIONAL_ENGINES:
        installed = version(engine)
        if installed is None:
            yield Finding("engine", "ok", f"{engine}: not installed; the embedded engine needs nothing more")
        else:
            yield from _fits(engine, f"{engine} {installed}")


def conflicts(package: str) -> list[str]:
    """What an installed package asks for and what is installed instead.

    Example: `["vllm 0.11.0 needs torch==2.9.0, installed is 2.13.0"]`
    """
    found: list[str] = []
    for requirement in _requirements(package) or []:
        marker = requirement.marker
        installed = version(requirement.name)
        if installed is None or (marker is not None and not marker.evaluate({"extra": ""})):
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            asked = f"{requirement.name}{requirement.specifier}"
            found.append(f"{package} {version(package)} needs {asked}, installed is {installed}")
    return found


def _fits(package: str, text: str) -> Iterator[Finding]:
    wrong = conflicts(package)
    if wrong:
        yield Finding("extra", "warning", "; ".join(wrong), f"pip install --upgrade {package}, or the version it names")
    else:
        yield Finding("extra", "ok", text)


def _by_extra() -> Iterator[tuple[str, Requirement]]:
    """Our extras for users, one requirement each."""
    for requirement in _requirements("groupwise") or []:
        extra = None if requirement.marker is None else _extra_of(requirement.marker)
        if extra is not None and extra not in _DEVELOPMENT:
            yield extra, requirement


def _extra_of(marker: Marker) -> str | None:
    names = metadata.metadata("groupwise").get_all("Provides-Extra") or []
    return next((name for name in names if marker.evaluate({"extra": name})), None)


def _problem(requirement: Requirement) -> tuple[str, str] | None:
    """What is wrong with a package, and its cure; None: it is installed and in the range."""
    installed, asked = version(requirement.name), f"{requirement.name}{requirement.specifier}"
    if installed is None:
        return f"{requirement.name} is not installed", f'pip install "{asked}"'
    if requirement.specifier.contains(installed, prereleases=True):
        return None
    return f"{requirement.name} {installed} is installed, {asked} is needed", f'pip install "{asked}"'


def _requirements(package: str) -> list[Requirement] | None:
    """What the package asks for; None if it is not installed. A line that cannot be read is left out."""
    try:
        lines = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return None
    found: list[Requirement] = []
    for line in lines:
        try:
            found.append(Requirement(line))
        except InvalidRequirement:
            continue
    return found
