"""Work on a GPU, captured once and launched again as a whole.

A decode step is a thousand small kernels, and the host needs longer to launch one than the GPU to run it. A CUDA graph
is the list of kernels with their addresses: launched in one go, without Python. So everything must stay where it is,
what differs from time to time has to stand in tensors, and the host must not look at any of them meanwhile.

    launched = Launched(work, CudaGraphs(device))
    logits = launched(form)          # calls work() the first time, captures it the second, launches it from then on

The first call looks for what a graph could not do, as a capture that breaks off leaves a device in disorder. Captured
work is tried out before it is trusted, beside `work()` on the same inputs. What cannot be captured, or gives something
else, is called as it is for good.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from groupwise.engines.watch import UncapturableError, Watch
from groupwise.models.scarce import is_out_of_memory
from groupwise.models.trunk_attention import CLOSE

log = logging.getLogger(__name__)

MOST = 64
"""Pieces of work that are kept captured. With more there is no pattern in the forms, and the host's memory fills up."""
Work: TypeAlias = Callable[[], Tensor]


class Graphs(Protocol):
    """A device that can capture."""

    memory: int
    """Bytes that it has in all."""

    def captured(self, work: Work) -> Work:
        """What does the same again, on the same memory. Nothing is computed yet."""
        ...


class CudaGraphs:
    """CUDA graphs, which share the memory for what they work out on the way."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.memory = torch.cuda.get_device_properties(device).total_memory
        self._pool = torch.cuda.graph_pool_handle()

    def captured(self, work: Work) -> Work:
        """See `Graphs`."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device):
            stream = torch.cuda.current_stream()
            try:
                # Other threads (a checkpoint being copied, a reward model) may go on with what they do.
                with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                    result = work()
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                raise UncapturableError(f"{error}".splitlines()[0]) from error
            finally:
                torch.cuda.set_stream(stream)  # a capture that breaks off leaves its own behind

        def launch() -> Tensor:
            graph.replay()
            return result

        return launch


class Launched:
    """`work`, which does the same for the same form: called, then captured, then launched."""

    def __init__(self, work: Work, graphs: Graphs) -> None:
        self._work, self._graphs = work, graphs
        self._met = set[Hashable]()
        self._captured: dict[Hashable, Work] = {}
        self.why_not = ""
        """Why it cannot be captured."""

    def __call__(self, form: Hashable) -> Tensor:
        """Launch, or capture, or call. What comes of it is good until the next call."""
        if (launch := self._captured.get(form)) is not None:
            return launch()
        if self.why_not:
            return self._work()
        try:
            if form not in self._met:
                with Watch():
                    result = self._work()
                self._met.add(form)
                return result
            return self._proven(form)
        except UncapturableError as error:
            self._give_up(str(error))
            return self._work()

    def forget(self) -> None:
        """What was captured refers to memory that has gone."""
        self._captured.clear()
        self._met.clear()

    def _proven(self, form: Hashable) -> Tensor:
        launch = self._graphs.captured(self._work)
        given, expected = launch(), self._work()
        rounding = CLOSE[expected.dtype] * float(expected.nan_to_num(0.0, 0.0, 0.0).abs().max())
        if not torch.allclose(given, expected, rtol=0.0, atol=rounding, equal_nan=True):
            raise UncapturableError("launched again it gives something else")
        if len(self._captured) == MOST:
            self.forget()
        self._captured[form] = launch
        return expected

    def _give_up(self, why: str) -> None:
        log.warning("tokens are decoded without CUDA graphs, which is slower: %s", why)
        self.why_not = why
        self.forget()


def graphs_of(device: torch.device) -> Graphs | None:
    """`None` where the device has none."""
    return CudaGraphs(device) if device.type == "cuda" else None
