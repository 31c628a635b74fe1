"""Whether the hub answers, asked once before a data set is asked for: its clients retry for half a minute and say so.

with cached_unless_reachable("openai/gsm8k") as silence:      # silence: why nobody answers; None if somebody does
    datasets.load_dataset("openai/gsm8k", "main")             # of a silent hub: only what was downloaded before
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

_SECONDS = 5.0


@contextmanager
def cached_unless_reachable(name: str) -> Generator[str | None]:
    """Within it the clients ask nobody if nobody answers. What is given is why, for the message."""
    constants: Any = import_module("huggingface_hub.constants")
    config: Any = import_module("datasets.config")
    why = (
        None if constants.HF_HUB_OFFLINE or config.HF_HUB_OFFLINE else _silence(f"{constants.ENDPOINT}/datasets/{name}")
    )
    before = constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE
    if why is not None:
        constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
        why = f"the hub at {constants.ENDPOINT} cannot be reached ({why}); HF_ENDPOINT names a mirror"
    try:
        yield why
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = before


def _silence(address: str) -> str | None:
    """Why nothing answers there. Any answer will do: what to make of it, the clients know best."""
    if not address.startswith(("http://", "https://")):
        return None
    try:
        urlopen(Request(address, method="HEAD"), timeout=_SECONDS).close()
    except HTTPError:
        return None
    except (OSError, ValueError) as error:
        return str(error.reason if isinstance(error, URLError) else error)
    return None
