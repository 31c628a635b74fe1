"""`groupwise version`: what is installed here, for reports of mistakes. Imports none of it."""

from __future__ import annotations

import platform

import typer

from groupwise import __version__


def version() -> None:
    """Say which versions of groupwise and of what it stands on are installed."""
    from groupwise.runs.identity import version as installed

    typer.echo(f"groupwise {__version__}")
    typer.echo(f"python {platform.python_version()} on {platform.platform()}")
    for package in ("torch", "transformers", "tokenizers", "peft", "datasets", "safetensors"):
        typer.echo(f"{package} {installed(package) or 'is not installed'}")
