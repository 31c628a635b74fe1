"""All ranks that share an update: each holds whole groups, counts are of everybody, gradients are added up.

A loss is a sum over tokens, with weights from counts of the whole update. So with several ranks nothing changes but
that the counts are gathered before the first backward pass, and the gradients are summed (not averaged) after the last.

    world.gather(lengths_R)        # those of all ranks in a row, and where one's own begin
    world.total(3.0, 1.5)          # sums over all ranks
    world.add_up(gradients)        # in place
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor


class World(Protocol):
    """What a rank says to the others, and hears. Every rank makes the same calls in the same order."""

    def gather(self, values: Tensor) -> tuple[Tensor, int]:
        """The values of all ranks along the first axis, rank after rank, and where one's own begin."""
        ...

    def total(self, *values: float) -> list[float]:
        """Each value summed over all ranks."""
        ...

    def largest(self, value: int) -> int:
        """The largest of all ranks."""
        ...

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Sum each tensor over all ranks, in place."""
        ...

    @property
    def size(self) -> int:
        """How many ranks there are."""
        ...


class Alone:
    """One rank: everything is as it is."""

    size = 1

    def gather(self, values: Tensor) -> tuple[Tensor, int]:
        """One's own are all there are."""
        return values, 0

    def total(self, *values: float) -> list[float]:
        """One's own are all there are."""
        return list(values)

    def largest(self, value: int) -> int:
        """One's own is the largest."""
        return value

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Nobody has anything to add."""


class Ranks:
    """The ranks of a torch.distributed group that was set up before.

    Example: after `torch.distributed.init_process_group("gloo", ...)` in each process: `Ranks(torch.device("cpu"))`
    """

    def __init__(self, device: torch.device, group: dist.ProcessGroup | None = None) -> None:
        self._device = device
        self._group = group
        self.size = dist.get_world_size(group)
        self._rank = dist.get_rank(group)

    def gather(self, values: Tensor) -> tuple[Tensor, int]:
        """The values of all ranks along the first axis, and where one's own begin."""
        counts = self._gathered(torch.tensor([len(values)], device=self._device))
        lengths = [int(count) for count in counts]
        room = values.new_zeros(max(lengths), *values.shape[1:], device=self._device)
        room[: len(values)] = values.to(self._device)
        everyone = self._gathered(room)
        found = torch.cat([part[:length] for part, length in zip(everyone, lengths, strict=True)])
        return found.to(values.device), sum(lengths[: self._rank])

    def total(self, *values: float) -> list[float]:
        """Each value summed over all ranks."""
        # mps knows no float64; there counts of up to 2^24 are exact all the same.
        dtype = torch.float32 if self._device.type == "mps" else torch.float64
        sums = torch.tensor(values, dtype=dtype, device=self._device)
        dist.all_reduce(sums, group=self._group)
        return sums.tolist()

    def largest(self, value: int) -> int:
        """The largest of all ranks."""
        found = torch.tensor([value], device=self._device)
        dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self._group)
        return int(found)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Sum each tensor over all ranks, in place."""
        for tensor in tensors:
            dist.all_reduce(tensor, group=self._group)

    def _gathered(self, values: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(parts, values, group=self._group)
        return parts


def weighing(world: World, weigh: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An entry of `WEIGHTS` that is given the counts of all ranks, and gives the weights of one's own rollouts."""

    def weighed(*, lengths_R: Tensor, group_R: Tensor) -> Tensor:
        groups, rank = world.gather(torch.tensor([int(group_R.max()) + 1 if len(group_R) else 0]))
        everyone_R, first = world.gather(lengths_R)
        groups_R, _ = world.gather(group_R + int(groups[:rank].sum()))
        return weigh(lengths_R=everyone_R, group_R=groups_R)[first : first + len(lengths_R)]

    return weighed


ALONE = Alone()
"""The world of a single process."""
