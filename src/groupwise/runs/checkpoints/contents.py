"""A checkpoint that is whole, every digest right, and holds what this groupwise never wrote: that of another version,
or of a stranger who made it by hand. What comes of it is one message and no stack.

    with as_written(checkpoint.path):
        learner.restore(state["learner"])           # TypeError, KeyError, ... -> RunError that names the checkpoint
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from groupwise.errors import GroupwiseError, RunError

_STRANGE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, AssertionError)
"""What code raises that is given something else than it was written for; RecursionError is a RuntimeError."""


@contextmanager
def as_written(path: Path) -> Generator[None]:
    """Inside, what was read from a checkpoint is put to use."""
    try:
        yield
    except GroupwiseError:
        raise
    except _STRANGE as error:
        why = f"{type(error).__name__}: {f'{error}'.partition(chr(10))[0][:200]}"
        raise RunError(
            f"{path} is whole, but what it holds is nothing that this groupwise can go on from ({why}): another "
            "version wrote it, or somebody by hand. Ways out: use the versions that run.json names, choose another "
            "name (run.name=...), or delete that folder to take the checkpoint before it"
        ) from error
