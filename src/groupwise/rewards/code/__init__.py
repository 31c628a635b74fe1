"""Rewards that run the programs a model wrote, and their sandbox. `docs/sandbox.md` says what it stands up to.

rewards     code_stdio and code_tests
sandbox     run a program, or put tests to it
levels      which boundary works here, and the line that says so
forkserver  the trainer's side of the process that starts programs
inside      the other side: what runs in that process and in the programs' own
"""

from groupwise.rewards.code.levels import Boundary, detect, is_lower
from groupwise.rewards.code.outcome import Limits, Outcome
from groupwise.rewards.code.rewards import boundary_of, code_stdio, code_tests, in_sandbox
from groupwise.rewards.code.sandbox import Sandbox, SandboxSettings, Tested, UnitTests, open_sandbox, shared

__all__ = [
    "Boundary",
    "Limits",
    "Outcome",
    "Sandbox",
    "SandboxSettings",
    "Tested",
    "UnitTests",
    "boundary_of",
    "code_stdio",
    "code_tests",
    "detect",
    "in_sandbox",
    "is_lower",
    "open_sandbox",
    "shared",
]
