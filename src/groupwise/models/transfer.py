"""From the host to the device without waiting for it.

A copy out of ordinary memory makes the host wait until a GPU has done all that it was told before, so it has nothing
to do while the next work is prepared. A copy out of pinned memory is queued like any other work, and the block is kept
until it has been read (torch's allocator of pinned memory sees to that).

    ids = on_device([[5, 7, 11]], policy.device)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def on_device(values: Tensor | Sequence[Any], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Numbers, or a tensor of the host, as a tensor there."""
    there = torch.as_tensor(values, dtype=dtype)
    if device.type != "cuda" or there.device.type != "cpu":
        return there.to(device)
    return there.pin_memory().to(device, non_blocking=True)
