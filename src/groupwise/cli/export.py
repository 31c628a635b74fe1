"""`groupwise export`: a trained model as a folder that other programs load, or on the hub."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from groupwise.cli.train import Overrides
from groupwise.errors import ModelError, RunError

if TYPE_CHECKING:
    from groupwise.cli.subject import Subject
    from groupwise.config.sections import ModelSection

ADAPTER_FILES = "adapter_*"


def export(
    what: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run folder, or a model.")],
    out: Annotated[Path, typer.Option(help="The folder to write. It must not hold anything yet.")],
    overrides: Overrides = None,
    adapter: Annotated[bool, typer.Option("--adapter", help="The LoRA adapter alone, not the whole model.")] = False,
    push_to_hub: Annotated[str | None, typer.Option(metavar="NAME", help="Upload it too, as you/name.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make that repository a private one.")] = False,
) -> None:
    """Write a model that plain transformers loads: safetensors, configuration, tokenizer; a LoRA adapter merged.

    The weights keep the precision in which they are stored; model.dtype=fp32 and the like change it.
    """
    from groupwise.cli.hub import create_repository, upload
    from groupwise.cli.progress import terminal
    from groupwise.cli.subject import subject
    from groupwise.errors import RecipeError

    if private and push_to_hub is None:
        raise RecipeError("--private says who may see the repository on the hub: it goes with --push-to-hub NAME")
    console = terminal()
    about = subject(what, overrides or [])
    _refuse_taken(out)
    url = None if push_to_hub is None else create_repository(push_to_hub, private=private)
    with console.status(f"writing {out}"):
        _written(about, out, adapter=adapter)
    console.print(_described(out, adapter=adapter), soft_wrap=True)
    if push_to_hub is not None:
        with console.status(f"uploading to {push_to_hub}"):
            upload(push_to_hub, out)
        console.print(f"uploaded to {url}", soft_wrap=True)


def _refuse_taken(out: Path) -> None:
    try:
        taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise RunError(f"--out {out} cannot be read: {error.strerror}") from error
    if taken:
        raise RunError(f"--out {out} holds something already, and nothing in it will be overwritten: name a new folder")


def _written(about: Subject, out: Path, *, adapter: bool) -> None:
    """Write beside `out` and rename: what bears the name is whole."""
    from groupwise.runs.files import cannot_write

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise RunError(cannot_write(out, error, "--out")) from error
    try:
        _write_adapter(about, beside) if adapter else _write_model(about, beside)
        beside.chmod(0o755)  # mkdtemp makes a folder for its owner alone
        if out.is_dir():
            out.rmdir()
        beside.rename(out)
    except OSError as error:
        raise RunError(cannot_write(out, error, "--out")) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write_model(about: Subject, folder: Path) -> None:
    from groupwise.config.draft import COMMAND_LINE
    from groupwise.models.load import load_model, stored_dtype
    from groupwise.models.save import save_model
    from groupwise.training.build import located_model

    section: ModelSection = located_model(about.loaded)
    asked = about.loaded.origins["model.dtype"] == COMMAND_LINE
    dtype = section.dtype if asked and section.dtype != "auto" else stored_dtype(section)
    model, tokenizer = load_model(section.model_copy(update={"dtype": dtype, "device": "cpu"}))
    save_model(model, tokenizer, folder)


def _write_adapter(about: Subject, folder: Path) -> None:
    from groupwise.training.build import located_model

    source = Path(located_model(about.loaded).id)
    if not (source / "adapter_config.json").is_file():
        raise ModelError(
            f"--adapter: {source} holds a whole model and no LoRA adapter. Leave --adapter away, or train with [lora]"
        )
    for file in (file for file in source.iterdir() if file.is_file()):
        shutil.copy(file, folder)


def _described(out: Path, *, adapter: bool) -> str:
    """What is in the folder, with the hashes of its weights, and how to load it."""
    weights = sorted(out.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in out.iterdir())
    lines = [f"{out}  {'LoRA adapter' if adapter else 'whole model'}, {size / 1e6:,.1f} MB"]
    lines += [f"  {file.name}  {file.stat().st_size:,} bytes  sha256 {_sha256(file)}" for file in weights]
    load = f'AutoModelForCausalLM.from_pretrained("{out}")'
    # With peft installed, transformers loads an adapter's base by itself.
    lines.append(f"load it with transformers{' and peft' if adapter else ''}: {load}")
    return "\n".join(lines)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
