"""The section of the code sandbox: which boundary, and what one program of a model's may use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from groupwise.config.section import Section


class SandboxSection(Section):
    """Where programs that a model wrote are run, for code rewards. See docs/sandbox.md."""

    level: Literal["auto", "strong", "unsafe"] = "auto"
    """`auto` takes the best boundary that works on this machine and refuses to run programs without one; `strong`
    refuses anything less than files, network, processes and system calls closed off. `unsafe` runs them with your
    files, keys and network: it is recorded in run.json and shown in every view."""
    url: str = Field(default="", pattern=r"^(https?://\S+)?$", json_schema_extra={"allowed": "an http(s) address"})
    """A server that speaks SandboxFusion's /run_code; programs then run there and not here."""
    cpu_seconds: float = Field(default=4.0, gt=0, le=3600)
    """Processor time of one program on one input, or on all tests of a problem. More is wrong."""
    wall_seconds: float = Field(default=10.0, gt=0, le=3600)
    """Time in which a program may wait; what a busy machine keeps it waiting is not counted."""
    memory_mb: int = Field(default=512, ge=64)
    """Address space of one program."""
    output_kb: int = Field(default=1024, ge=1, le=1 << 20)
    """What one program may write."""
    at_once: int = Field(default=64, ge=1, le=1024)
    """Programs that run at the same time."""
    packages: list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]] = Field(default_factory=list[str])
    """Packages beyond the standard library that programs may import, such as ["numpy"]."""
