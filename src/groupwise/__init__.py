"""groupwise: GRPO training in which the group is the unit all the way down."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Threads that wait for each other by spinning stand still as soon as another process wants the same core: measured, a
# step took 20 to 50 times as long. A short spin costs nothing on an idle machine. Read once, when torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
# In 16 bits torch compiles a matrix product for each number of tokens and keeps the last 1,024, twice: a gigabyte and a
# half after ten steps, as no step has the sizes of another. Within a step fewer than these are in use.
os.environ.setdefault("LRU_CACHE_CAPACITY", "64")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")

if TYPE_CHECKING:
    from groupwise.config import Recipe, load_recipe
    from groupwise.rewards import RewardFunction
    from groupwise.training.trainer import Trainer

__version__ = "0.1.0"

_PUBLIC = {
    "Recipe": "groupwise.config",
    "load_recipe": "groupwise.config",
    "RewardFunction": "groupwise.rewards",
    "Trainer": "groupwise.training.trainer",
}

__all__ = ["Recipe", "RewardFunction", "Trainer", "__version__", "load_recipe"]


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that a command that needs no torch starts without it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'groupwise' has no attribute {name!r}")
    from importlib import import_module

    return vars(import_module(_PUBLIC[name]))[name]
