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
    told: dict[str, Any] = {"nonce": job["nonce"]}
    line, namespace = Line(), module("tests").__dict__
    try:
        run_here(compile(job["prelude"], "prelude.py", "exec"), namespace)
        uses = Uses(job["setup"], *job["tests"])
        namespace.update(_names_from_elsewhere(line, uses, set(namespace), job["entry_point"]))
        run_here(compile(job["setup"], "setup.py", "exec"), namespace)
        code = [compile(text, "test.py", "exec") for text in job["tests"]]
    except GoneError as error:
        told["tests"] = [["failed", str(error)]] * len(job["tests"])
    except BaseException as error:
        told["broken"] = f"{type(error).__name__}: {error}"[:500]
    else:
        told["tests"] = [_outcome(each, namespace, line) for each in code]
    with open(VERDICT, "wb") as file:  # noqa: PTH123 - a descriptor
        file.write(json.dumps(told).encode())
    return 0


def _names_from_elsewhere(line: Line, uses: Uses, defined: set[str], entry: str | None) -> dict[str, Any]:
    """What tests get from elsewhere: the library's names from the library, the tested ones from the program.

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
    asked = line.ask("names", sorted(tested)).get("value")
    if not isinstance(asked, dict):
        raise GoneError("the program says nothing of its names")
    found = {name: line.value(wired) for name, wired in asked.items() if name in tested}
    for place in uses.imported_from:  # `from solution import f`
        module(place).__dict__.update(found)
    return {**library, **found}


def _outcome(code: CodeType, namespace: dict[str, Any], line: Line) -> list[str]:
    line.unsendable = ""
    known = set(namespace)
    try:
        run_here(code, namespace)
        _run_collected({name: namespace[name] for name in namespace.keys() - known})
    except BaseException as error:
        if line.unsendable:
            return ["unjudged", f"the test hands the program {line.unsendable}, which cannot cross"]
        return ["failed", f"{type(error).__name__}: {error}"[:500]]
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
