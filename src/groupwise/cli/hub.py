"""Put a model folder on the Hugging Face hub. Every way in which that fails is one message."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from groupwise.errors import ModelError


def create_repository(name: str, *, private: bool) -> str:
    """Make the repository, or take the one that is there; returns its address.

    Done before a model is written: it finds out whether there are a network, a login and a right to write.
    """
    from huggingface_hub import HfApi

    with _explained(name, "nothing was written or uploaded"):
        return str(HfApi().create_repo(name, private=private or None, exist_ok=True))


def upload(name: str, folder: Path) -> None:
    """Upload all files of the folder in one commit."""
    from huggingface_hub import HfApi

    with _explained(name, f"the model is whole in {folder}; to try again: hf upload {name} {folder}"):
        HfApi().upload_folder(repo_id=name, folder_path=folder, commit_message="Upload a model trained with groupwise")


@contextmanager
def _explained(name: str, what_is_left: str) -> Generator[None]:
    try:
        yield
    except Exception as error:
        # The library raises a dozen kinds of errors, from its own and from the HTTP client below.
        why = " ".join(f"{error}".split())[:300] or type(error).__name__
        raise ModelError(
            f"--push-to-hub {name}: {why} ({what_is_left}). It needs the network and a token that may write there: "
            "`hf auth login`"
        ) from error
