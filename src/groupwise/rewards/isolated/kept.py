"""What belongs to the whole process and not to a reward function: put back after a call that changed it.

The working folder, in which relative paths of the run start, and torch's default dtype. Gradient mode is a
thread's own.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator
from pathlib import Path

from groupwise.rewards.isolated.watch import LOG


@contextlib.contextmanager
def kept(function: str) -> Generator[None]:
    """Leave the process as it was, and say which function had changed it.

    Example: `with kept("judge"): judge(...)`
    """
    torch = sys.modules.get("torch")
    dtype = torch.get_default_dtype() if torch is not None else None
    folder = _folder()
    try:
        yield
    finally:
        if folder is not None and _folder() != folder:
            LOG.warning("reward function %r changed the working folder: it is put back", function)
            with contextlib.suppress(OSError):
                os.chdir(folder)
        if torch is not None and torch.get_default_dtype() != dtype:
            LOG.warning("reward function %r changed torch's default dtype: it is put back", function)
            torch.set_default_dtype(dtype)


def _folder() -> str | None:
    try:
        return str(Path.cwd())
    except OSError:  # it was removed
        return None
