"""groupwise: GRPO training in which the group is the unit all the way down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from groupwise.config import Recipe, load_recipe
    from groupwise.training.trainer import Trainer

__version__ = "0.1.0"

_PUBLIC = {
    "Recipe": "groupwise.config",
    "load_recipe": "groupwise.config",
    "Trainer": "groupwise.training.trainer",
}

__all__ = ["Recipe", "Trainer", "__version__", "load_recipe"]


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that a command that needs no torch starts without it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'groupwise' has no attribute {name!r}")
    from importlib import import_module

    return vars(import_module(_PUBLIC[name]))[name]
