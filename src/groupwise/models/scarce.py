"""Whether an error says that the memory did not suffice, of a GPU or of the machine."""

from __future__ import annotations

import torch

_WORDS = ("not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether that is what an error says. Example: `is_out_of_memory(MemoryError())` is True"""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in f"{error}".lower() for words in _WORDS)
