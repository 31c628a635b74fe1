"""What the server imports, so that no program has to.

Little before the first program, so that a cold start is short; the rest, one at a time, whenever there is nothing else
to do. Under the strict profile, where a program can open no file to import from, all of it at once.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import random as random  # before any program: its numbers are to be the same, whoever imports it first
import sys
from collections import deque

WITH_LIBRARIES = "binascii zlib decimal"
"""Modules that may need libraries from folders that no program can read: before any wall stands."""

MODULES = """
    collections.abc math itertools functools heapq bisect re string typing copy operator datetime fractions
    inside.callee inside.judge dataclasses enum statistics json time traceback hashlib inspect textwrap calendar queue
    unittest __future__ abc array base64 cmath codecs contextlib errno gc io keyword locale numbers pprint
    select struct sys threading types unicodedata warnings weakref
"""
"""In the order of how often programs ask for them."""


_NOT_OURS = ("site-packages", "dist-packages")
"""Folders of the standard library's that hold what others installed, the grader and its data among it."""


class Preloading:
    """What is imported, what is still to come, and what programs may read."""

    def __init__(self, packages: list[str], sites: list[str]) -> None:
        self._pending = deque(MODULES.split())
        library = os.path.dirname(os.__file__)  # noqa: PTH120 - pathlib takes 10 ms to import
        self.readable = [library]
        self.hidden = [folder for name in _NOT_OURS if os.path.isdir(folder := f"{library}/{name}")]  # noqa: PTH112
        """What lies in a readable folder and is not to be read."""
        for name in WITH_LIBRARIES.split():
            _import_if_there(name)
        if packages:
            self._import_packages(packages, sites)
        gc.freeze()

    @property
    def has_more(self) -> bool:
        """Whether there is something left to import."""
        return bool(self._pending)

    def one_more(self) -> None:
        """Import the next one. At the end nothing is left for a child's garbage collector to look at and so to copy."""
        name = self._pending.popleft()
        _import_if_there(name.replace("inside", __package__ or "inside"))
        if not self._pending:
            gc.collect()
            gc.freeze()

    def finish(self) -> None:
        """Import the rest."""
        while self._pending:
            self.one_more()

    def _import_packages(self, packages: list[str], sites: list[str]) -> None:
        """Import them and leave them off the path: only what they keep in their own folders can follow."""
        os.environ |= {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
        before = list(sys.path)
        sys.path += sites
        for name in packages:
            importlib.import_module(name)
        sys.path[:] = before
        os.environ.clear()
        for name in packages:
            with contextlib.suppress(AttributeError):
                self.readable += list(sys.modules[name].__path__)


def _import_if_there(name: str) -> None:
    """Some builds of Python lack some modules; a program that wants one is told so when it asks."""
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
