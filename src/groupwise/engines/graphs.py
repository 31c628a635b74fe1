"""Work on a GPU, captured once and launched again as a whole.

A decode step is a thousand small kernels, and the host needs longer to launch one than the GPU to run it. A CUDA graph
is the list of kernels with their addresses: launched in one go, without Python. So everything must stay where it is,
what differs from time to time has to stand in tensors, and the host must not look at any of them meanwhile.

    launched = Launched(CudaGraphs(device))
    logits = launched(form, work)    # calls work() the first time, captures it the second, launches it from then on

The first call looks for what a graph could not do, as a capture that breaks off leaves a device in disorder. Captured
work is tried out before it is trusted, beside `work()` on the same inputs. What cannot be captured, or gives something
else, is called as it is for good.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from groupwise.engines.watch import UncapturableError, Watch
from groupwise.models.scarce import is_out_of_memory
from groupwise.models.trunk_attention import CLOSE

log = logging.getLogger(__name__)

MOST = 128
"""Pieces of work that are kept captured; then the one that was launched longest ago goes. Batches of 64 to 512 rows and
random lengths meet 120 to 410 forms in 20 to 150 batches; from then on a batch captures 1 to 10 of them again."""
_MET = 4096
"""Forms that are known to have been called."""
Work: TypeAlias = Callable[[], Tensor]


class Graphs(Protocol):
    """A device that can capture."""

    memory: int
    """Bytes that it has in all."""

    def captured(self, work: Work) -> Work:
        """What does the same again, on the same memory. Nothing is computed yet."""
        ...

    def forget(self) -> None:
        """Nothing that was captured so far is going to be launched again."""
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
            ours = _stream_of(torch.device("cuda", torch.cuda.current_device()))
            try:
                # Other threads (a checkpoint being copied, a reward model) may go on with what they do.
                how = torch.cuda.graph(graph, pool=self._pool, stream=ours, capture_error_mode="thread_local")
                with _nothing_collected(), how:
                    result = work()
            except RuntimeError as error:
                if _is_about_memory(error):
                    raise
                raise UncapturableError(f"{error}".splitlines()[0]) from error
            finally:
                torch.cuda.set_stream(stream)  # a capture that breaks off leaves its own behind

        def launch() -> Tensor:
            graph.replay()
            return result

        return launch

    def forget(self) -> None:
        """See `Graphs`. A pool whose graphs are all gone must not be used again while anything is left in it, and the
        workspace of a matrix product may be."""
        self._pool = torch.cuda.graph_pool_handle()


@cache
def _stream_of(device: torch.device) -> torch.cuda.Stream:
    """Where work on this device is captured. Torch's own stream for it lies on the device that captured first: work on
    another one would be done instead of captured, and its result never change again."""
    return torch.cuda.Stream(device)


@contextmanager
def _nothing_collected() -> Generator[None]:
    """What is freed while a graph is captured, by chance, may be what cannot be freed then."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _is_about_memory(error: BaseException | None) -> bool:
    """This error, or the one that it came of: a capture that breaks off raises another on its way out."""
    return error is not None and (is_out_of_memory(error) or _is_about_memory(error.__context__))


class Launched:
    """Work that does the same for the same form: called, then captured, then launched."""

    def __init__(self, graphs: Graphs) -> None:
        self._graphs = graphs
        self._met: dict[Hashable, None] = {}
        self._captured: dict[Hashable, Work] = {}
        self.why_not = ""
        """Why it cannot be captured."""

    def __call__(self, form: Hashable, work: Work) -> Tensor:
        """Launch, or capture, or call. What comes of it is good until the next call."""
        if (launch := self._captured.pop(form, None)) is not None:
            self._captured[form] = launch
            return launch()
        if self.why_not:
            return work()
        try:
            if form in self._met:
                return self._proven(form, work)
            with Watch():
                result = work()
            self._met[form] = None
            _drop_oldest(self._met, _MET)
            return result
        except UncapturableError as error:
            self._give_up(str(error))
            return work()

    def forget(self) -> None:
        """What was captured refers to memory that has gone."""
        self._captured.clear()
        self._met.clear()
        self._graphs.forget()

    def _proven(self, form: Hashable, work: Work) -> Tensor:
        launch = self._graphs.captured(work)
        given, expected = launch(), work()
        rounding = CLOSE[expected.dtype] * float(expected.nan_to_num(0.0, 0.0, 0.0).abs().max())
        if not torch.allclose(given, expected, rtol=0.0, atol=rounding, equal_nan=True):
            raise UncapturableError("launched again it gives something else")
        self._captured[form] = launch
        _drop_oldest(self._captured, MOST)
        return expected

    def _give_up(self, why: str) -> None:
        tell(why)
        self.why_not = why
        self.forget()


@cache
def tell(why: str) -> None:
    """Once: the decoders that a choice tries out, and the one that is chosen, come to the same."""
    log.warning("tokens are decoded without CUDA graphs, which is slower: %s", why)


def _drop_oldest(kept: dict[Hashable, Any], most: int) -> None:
    while len(kept) > most:
        del kept[next(iter(kept))]


def graphs_of(device: torch.device) -> Graphs | None:
    """`None` where the device has none."""
    return CudaGraphs(device) if device.type == "cuda" else None
