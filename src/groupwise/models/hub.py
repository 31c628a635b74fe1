"""Whether the hub can be reached, asked once before anything is downloaded: its clients try for most of a minute.

check_reachable("Qwen/Qwen2.5-0.5B-Instruct")      # a ModelError within seconds; nothing for folders and offline use
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from huggingface_hub import constants, try_to_load_from_cache

from groupwise.errors import ModelError

_SECONDS = 5.0


def check_reachable(name: str, revision: str | None = None) -> None:
    """Raise if this id would have to be downloaded and nothing answers at the hub's address. Whatever is answered,
    the hub's own client knows best what to make of it."""
    if Path(name).exists() or constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE") == "1":
        return
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or isinstance(_in_cache(name, revision), str):
        return
    address = f"{constants.ENDPOINT}/{name}/resolve/{revision or 'main'}/config.json"
    if not address.startswith(("http://", "https://")):
        return
    try:
        urlopen(Request(address, method="HEAD"), timeout=_SECONDS).close()
    except HTTPError:
        return
    except (OSError, ValueError) as error:
        why = error.reason if isinstance(error, URLError) else error
        raise ModelError(
            f'model.id = "{name}": no folder of that name here, it was not downloaded before, and the hub at '
            f"{constants.ENDPOINT} cannot be reached ({why}). Check the spelling and the network; HF_ENDPOINT names a "
            "mirror; without a network give the folder of a model as model.id"
        ) from error


def _in_cache(name: str, revision: str | None) -> object:
    try:
        return try_to_load_from_cache(name, "config.json", revision=revision)
    except ValueError:  # no id at all: the client says what is wrong with it
        return name
