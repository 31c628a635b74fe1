"""Which names the tests of a problem use, and where each of them comes from: read off the tests, never run."""

from __future__ import annotations

import ast
import contextlib
import importlib
import sys
from typing import Any


class Uses:
    """The names that tests use: which they load, which they call, which they define themselves."""

    def __init__(self, *texts: str) -> None:
        self.names: set[str] = set()
        self.called: set[str] = set()
        self.own: set[str] = set()
        self.imported_from: set[str] = set()
        for text in texts:
            for node in ast.walk(ast.parse(text)):
                self._look_at(node)

    def _look_at(self, node: ast.AST) -> None:
        if isinstance(node, ast.Name):
            (self.names if isinstance(node.ctx, ast.Load) else self.own).add(node.id)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            self.called.add(node.func.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self.own.add(node.name)
        elif isinstance(node, ast.arg):
            self.own.add(node.arg)
        elif isinstance(node, ast.ImportFrom) and node.module in _SOLUTIONS:
            self.imported_from.add(node.module)
            self.names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self.own |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}


_SOLUTIONS = ("solution", "program", "main")
"""Modules that stand for the program when tests import from them."""


_WELL_KNOWN = {
    "collections": "Counter OrderedDict defaultdict deque namedtuple",
    "math": "ceil comb factorial fabs floor gcd inf isclose isnan lcm nan pi prod sqrt",
    "typing": "Any Callable Dict Iterable Iterator List Optional Set Tuple Union",
    "copy": "deepcopy",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "functools": "cmp_to_key lru_cache partial reduce",
    "itertools": "accumulate chain combinations permutations product",
}
"""What tests use without importing it, counting on a program that does. Theirs is the library's, not the program's."""


def library_names(uses: Uses) -> dict[str, Any]:
    """What of the standard library the tests use without importing it, each module only where a module is meant."""
    found: dict[str, Any] = {}
    for home, members in _WELL_KNOWN.items():
        for name in uses.names & set(members.split()):
            found[name] = getattr(importlib.import_module(home), name)
    for name in (uses.names & sys.stdlib_module_names) - uses.called:
        with contextlib.suppress(Exception):  # a module of another system, or one that cannot be opened from here
            found[name] = importlib.import_module(name)
    return found
