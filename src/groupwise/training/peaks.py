"""The most that a piece of work holds at once beyond what was there before, by torch's own account of its memory.

On a CPU the process holds more than that. The C library keeps blocks of less than 32 MB in one heap, where a block that
was freed serves no request of its own size, as torch asks for aligned memory, which is found in a larger one. So what a
forward pass frees between two tensors that it keeps stays as gaps, and the heap grows to about twice what is in use:
2.0 times on a model of 135 million parameters with LoRA, 1.7 on one of 3 million. Larger blocks go back to the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

IN_HEAP = 32 << 20
"""Blocks below this; glibc takes no larger threshold, neither by itself nor from models/allocator.py."""


class Peak(NamedTuple):
    """Bytes in use at the peak, and how many of them stand in the heap, with as much in gaps between them."""

    used: int
    gaps: int = 0


def peak_of(work: Callable[[], None], device: torch.device, share: float = 1.0) -> Peak:
    """Do the work and look. `share` of the work that is meant, whose blocks are so much larger."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return Peak(torch.cuda.max_memory_allocated(device) - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        work()
    inner: Any = profiled.profiler
    events = [event for event in inner.kineto_results.events() if event.name() == "[memory]"]
    return peak_in([int(event.nbytes()) for event in sorted(events, key=_start)], share)


def peak_in(changes: list[int], share: float = 1.0) -> Peak:
    """Of blocks taken (positive) and freed (negative), in order.

    Example: `peak_in([1 << 20, 64 << 20, -(1 << 20)])` is 65 MiB in use, 1 MiB of them in the heap.
    """
    used = in_heap = most = most_in_heap = 0
    for change in changes:
        used += change
        in_heap += change if abs(change) < IN_HEAP * share else 0
        most, most_in_heap = max(most, used), max(most_in_heap, in_heap)
    return Peak(most, most_in_heap)


def _start(event: Any) -> int:
    return int(event.start_ns())
