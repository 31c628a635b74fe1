"""`push_to_hub`: the saved model to the hub, where plain transformers loads it."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from groupwise.compat.config import SharedConfig
from groupwise.errors import ModelError

LEFT_HERE = ["runs/*", "checkpoint-*", "completions/*"]
"""What an output folder holds beside the model: every prompt and completion, which may be nobody else's business."""


def push(folder: Path, args: SharedConfig, *, message: str, revision: str | None) -> str:
    """Upload what is in the folder and return the address of the commit."""
    api = HfApi(token=args.hub_token)
    name = args.hub_model_id or folder.absolute().name
    try:
        repo = api.create_repo(name, private=args.hub_private_repo, exist_ok=True).repo_id
        done = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message=message,
            revision=revision or args.hub_revision,
            ignore_patterns=LEFT_HERE,
        )
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        first = f"{error}".strip().partition("\n")[0]
        raise ModelError(
            f"the model could not be uploaded as {name!r}: {first}. Log in with `hf auth login`, or set hub_token and "
            f"hub_model_id; what was saved is in {folder}"
        ) from error
    return str(done)
