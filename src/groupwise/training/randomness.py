"""Every generator of random numbers that training may draw from: torch's on all devices, numpy's, Python's.

Completions, the order of problems and the learner's own draws do not come from here: they are numbered (see
`engines/sampler.py`, `problems.py`, `learner/draws.py`). The dropout of adapters does, and whatever rewards draw.
"""

from __future__ import annotations

import random
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor


class Randomness:
    """All of them at once. Example: `state = Randomness(seed=0).state()`, and later `restore(state)`."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)

    def state(self) -> dict[str, Any]:
        """Where each of them is."""
        legacy = cast("tuple[str, Any, int, int, float]", np.random.get_state())
        version, numbers, gauss = random.getstate()
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy": [legacy[0], torch.from_numpy(legacy[1].astype(np.int64)), *legacy[2:]],
            "python": [version, list(numbers), gauss],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put each of them where it was. A device that is not here has nothing to be put back."""
        torch.set_rng_state(state["torch"])
        devices: list[Tensor] = state["cuda"]
        if torch.cuda.is_available() and len(devices) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(devices)
        name, numbers, place, has_gauss, gauss = state["numpy"]
        np.random.set_state((name, numbers.numpy().astype(np.uint32), place, has_gauss, gauss))
        version, words, cached = state["python"]
        random.setstate((version, tuple(words), cached))
