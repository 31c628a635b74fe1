"""Two processes that compute one gradient together, each from its own groups (gloo).

Questions and answers cross as bytes: JSON one way, safetensors the other. Nothing is pickled but the four arguments
that start a process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from safetensors.torch import load, save
from torch import Tensor

from groupwise.errors import LearnerError
from groupwise.learner.gradients import Bench, Subject, Way
from groupwise.learner.world import Ranks

PATIENCE = 600.0
"""Seconds until an answer is given up."""


class TwoRanks:
    """Example: `with TwoRanks(subject) as ranks: gradient = ranks.gradient(Way(order, ranks=(0, 1, 0)))`"""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject.to_json()
        self._folder = tempfile.TemporaryDirectory(prefix="groupwise-ranks-")
        self._processes: list[BaseProcess] = []
        self._ends: list[Connection] = []

    def __enter__(self) -> TwoRanks:
        context = multiprocessing.get_context("spawn")
        for rank in range(2):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(rank, str(Path(self._folder.name) / "meet"), self._subject, theirs), daemon=True
            )
            process.start()
            theirs.close()
            self._processes.append(process)
            self._ends.append(ours)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for end in self._ends:
            end.close()  # whoever waits for a question hears that there will be none
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.kill()
        self._folder.cleanup()

    def gradient(self, way: Way) -> Mapping[str, Tensor]:
        """The gradient that both come to, by their groups."""
        for end in self._ends:
            end.send_bytes(way.to_json().encode())
        gradients = [load(self._answer(rank)) for rank in range(2)]
        first, second = gradients
        if any(not torch.equal(first[name], second[name]) for name in first):
            raise LearnerError("two ranks added up their gradients and have different sums")
        return first

    def _answer(self, rank: int) -> bytes:
        try:
            if self._ends[rank].poll(PATIENCE):
                return self._ends[rank].recv_bytes()
        except EOFError:
            pass
        code = self._processes[rank].exitcode
        why = f"it ended with exit code {code}" if code is not None else f"no answer within {PATIENCE:.0f} s"
        raise LearnerError(f"rank {rank} of two computed no gradient: {why}. Its own message is above")


def _serve(rank: int, meeting: str, subject: str, end: Connection) -> None:
    """One of the two: answer until nobody asks."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2, timeout=timedelta(seconds=PATIENCE)
    )
    try:
        bench = Bench(Subject.from_json(subject))
        world = Ranks(torch.device("cpu"))
        while True:
            try:
                way = Way.from_json(end.recv_bytes().decode())
            except EOFError:
                break
            end.send_bytes(save({name: g.contiguous() for name, g in bench.gradient(way, world, rank).items()}))
    finally:
        dist.destroy_process_group()
