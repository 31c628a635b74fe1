"""Random numbers of reward functions: seeded by the run, and never a step of the run's own.

    with apart():                 # around all functions of this process
        judge(...)                # random.seed(0) in here, and the dropout of the next update is as it was

A function may seed what it draws from, and many do, to give the same grade twice. In the trainer's process that would
seed the trainer: the same dropout at every step from then on. So the generators are put back afterwards. What functions
draw meanwhile begins at one number of the run's, so a run that is repeated, or goes on after a kill, repeats it too.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Generator
from contextvars import ContextVar

_lane: ContextVar[random.Random | None] = ContextVar("lane", default=None)
_inside = 0
"""How many are in there: the first one in remembers, and the last one out puts back."""


@contextlib.contextmanager
def apart() -> Generator[None]:
    """Let what runs inside draw from numbers of its own, and leave every generator as it was, but for one number."""
    global _inside
    seed = random.getrandbits(64)
    put_back = _held() if not _inside else []
    _inside += 1
    try:
        if put_back:
            seed_all(seed)
        yield
    finally:
        _inside -= 1
        for restore in put_back:
            restore()


def _held() -> list[Callable[[], object]]:
    """What puts each generator back that has been imported."""
    python = random.getstate()
    held: list[Callable[[], object]] = [lambda: random.setstate(python)]
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        legacy = numpy.random.get_state()
        held.append(lambda: numpy.random.set_state(legacy))
    if torch is not None:
        main = torch.get_rng_state()
        held.append(lambda: torch.set_rng_state(main))
        if torch.cuda.is_initialized():
            devices = torch.cuda.get_rng_state_all()
            held.append(lambda: torch.cuda.set_rng_state_all(devices))
    return held


def seed_all(seed: int) -> None:
    """Every generator of random numbers that a function may draw from, as far as it has been imported."""
    random.seed(seed)
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)
    if torch is not None:
        torch.manual_seed(seed % 2**63)


def new_lane() -> random.Random:
    """The seeds of the functions of one process, to be drawn before anything runs beside it."""
    return random.Random(random.getrandbits(64))


def in_lane(seeds: random.Random) -> None:
    """From here on, in this task, `next_seed` draws from these."""
    _lane.set(seeds)


def next_seed() -> int:
    """The seed of the next call in a process of its own."""
    return (_lane.get() or random).getrandbits(64)
