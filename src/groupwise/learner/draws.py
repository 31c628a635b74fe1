"""A random number for each token that is the token's own: the same in any order of groups and any split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from groupwise.types import Group


def draws_of(groups: Sequence[Group], step: int) -> Tensor:
    """Numbers between 0 and 1 for the completion tokens of all rollouts that train, in order; others at every step.

    Example: the third token of the second completion of problem "p7" draws the same number in step 5, whoever else is
    there.
    """
    numbers = [
        np.random.default_rng(_seed(group.problem.id, branch, step)).random(rollout.completion.drawn)
        for group in groups
        for branch, rollout in enumerate(group.rollouts)
        if rollout.trains
    ]
    return torch.from_numpy(np.concatenate([np.empty(0), *numbers]))


def _seed(problem: str, branch: int, step: int) -> int:
    digest = hashlib.sha256(f"{step}|{branch}|{problem}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "little")
