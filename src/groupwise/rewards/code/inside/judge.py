"""The process that runs a problem's tests against a program that is somewhere else.

A name that the tests use and that neither they, nor the prelude, nor the standard library define stands for what the
program defines under that name. What its functions return is compared here, by Python's own `==` on Python's own types.
"""

from __future__ import annotations

import builtins
import json
import sys
from types import CodeType, FunctionType
from typing import Any

from .handles import GoneError, Line
from .jobs import VERDICT, fresh_streams, module, payload, run_here
from .uses import Uses, library_names


def judge() -> int:
    """Run the tests; the verdict, closed by the job's nonce, goes where only the parent reads it."""
    job = payload()
    fresh_streams()
    told = {"nonce": job["nonce"], **_judged(job)}
    with open(VERDICT, "wb") as file:  # noqa: PTH123 - a descriptor
        file.write(json.dumps(told).encode())
    return 0


def _judged(job: dict[str, Any]) -> dict[str, Any]:
    """How each test ended, or that they are broken by themselves. The two are kept well apart: a program that could
    break the tests would choose to be graded by nobody. From the first word that it says all that goes wrong is its
    own."""
    line, namespace = Line(), module("tests").__dict__
    try:
        run_here(compile(job["prelude"], "prelude.py", "exec"), namespace)
        uses, of_setup = Uses(job["setup"], *job["tests"]), Uses(job["setup"])
        tested, library = _names_from_elsewhere(uses, set(namespace), job["entry_point"])
        setup, *tests = [compile(text, "test.py", "exec") for text in (job["setup"], *job["tests"])]
    except BaseException as error:
        return {"broken": _told(error)}
    is_its_own = True
    try:
        found = _of_the_program(line, tested)
        for place in uses.imported_from:  # `from solution import f`
            module(place).__dict__.update(found)
        namespace.update({**library, **found})
        is_its_own = not tested.isdisjoint(of_setup.names)
        run_here(setup, namespace)
    except BaseException as error:
        if not is_its_own or line.unsendable:
            return {"broken": _told(error)}
        return {"tests": [["failed", _told(error)]] * len(tests)}
    return {"tests": [_outcome(each, namespace, line) for each in tests]}


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]


def _names_from_elsewhere(uses: Uses, defined: set[str], entry: str | None) -> tuple[set[str], dict[str, Any]]:
    """What tests get from elsewhere: the tested names from the program, the library's names, here, from the library.

    Which are tested is read off the tests alone. A name that only the program can define is; if there is none, what
    is called like something of Python's (`assert sum(10, 15) == 6`) has to be the program's own.
    """
    library = library_names(uses)
    free = uses.names - defined - uses.own
    tested = free - library.keys() - set(dir(builtins))
    if entry:  # a function, or a method of a class: `Solution().solve`
        tested = {entry.partition(".")[0].removesuffix("()")}
    elif not tested:
        tested = {name for name in free if name in uses.called}
        library = {name: value for name, value in library.items() if name not in tested}
    return tested, library


def _of_the_program(line: Line, tested: set[str]) -> dict[str, Any]:
    """What the program has under these names."""
    asked = line.ask("names", sorted(tested)).get("value")
    if not isinstance(asked, dict):
        raise GoneError("the program says nothing of its names")
    return {name: line.value(wired) for name, wired in asked.items() if name in tested}


def _outcome(code: CodeType, namespace: dict[str, Any], line: Line) -> list[str]:
    line.unsendable = ""
    known = set(namespace)
    try:
        run_here(code, namespace)
        _run_collected({name: namespace[name] for name in namespace.keys() - known})
    except BaseException as error:
        if line.unsendable:
            return ["unjudged", f"the test hands the program {line.unsendable}, which cannot cross"]
        return ["failed", _told(error)]
    return ["passed", ""]


def _run_collected(defined: dict[str, Any]) -> None:
    """Run what a test file only defines, as pytest would: functions called test_..., and unittest's cases."""
    for name, value in defined.items():
        if isinstance(value, type) and "unittest" in sys.modules:
            _run_case(value)
        elif name.startswith("test_") and isinstance(value, FunctionType):
            value()


def _run_case(kind: type) -> None:
    import unittest

    if issubclass(kind, unittest.TestCase):
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(kind).run(result)
        for _, trace in (*result.failures, *result.errors):
            raise AssertionError(trace[-300:])
