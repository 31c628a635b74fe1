"""What running a program came to, and who is to blame for how it ended.

A limit that the program itself hits (processor time, its own waiting, memory, output, a forbidden call) is its own
fault, and the answer is wrong: to leave such rows out would teach a model to time out. What our machinery fails at, a
process that cannot be started or that was given no processor, says nothing of the answer: the outcome is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

End: TypeAlias = Literal[
    "finished",  # by itself, with exit status 0
    "crashed",  # an exception, an exit status, a signal
    "cpu",  # past its processor seconds
    "wall",  # past its wall seconds, by its own waiting
    "output",  # more than it may write
    "violation",  # a system call that no honest program makes
    "starved",  # kept from running by a busy machine
    "lost",  # our machinery failed
]

UNKNOWN: frozenset[End] = frozenset({"starved", "lost"})
"""Ends that say nothing of the program."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use.

    `cpu_seconds` decides what is too slow; `wall_seconds` bounds a program that waits. Time that a busy machine keeps
    a program from running counts as neither.
    """

    cpu_seconds: float = 4.0
    wall_seconds: float = 10.0
    memory_mb: int = 512
    output_kb: int = 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended and what it wrote.

    Example: `Outcome("finished", stdout="5\\n", cpu_seconds=0.004, wall_seconds=0.006)`
    """

    end: End
    stdout: str = ""
    stderr: str = ""
    """The end of it, for a message."""
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    detail: str = ""

    @property
    def is_known(self) -> bool:
        """Whether it says anything of the program."""
        return self.end not in UNKNOWN
