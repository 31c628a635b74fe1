"""The process in which reasoning-gym runs: one JSON object a line comes in, one goes out. It keeps no secrets.

    {"do": "describe", "set": "countdown", "difficulty": 1}   -> {"ok": {"min_numbers": 3, ...}}   all settings
    {"do": "entries", "set": ..., "settings": {...}, "indices": [0, 1]}   -> {"ok": [["question", "answer"], ...]}
    {"do": "score", "set": ..., "settings": {...}, "index": 0, "answer": "7*(3+1)"}   -> {"ok": 1.0}
    {"do": "names"}   -> {"ok": ["ab", "acre", ...]}

Problems are made where they are graded: an entry of the library holds objects that no JSON does, but it is the same
whenever it is made from the same settings and index. The hash seed is fixed, as some sets walk through Python sets.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import sys
from functools import lru_cache
from importlib import import_module
from typing import Any

MEMORY = 4 << 30
"""Bytes of address space."""


def main() -> None:
    """Serve until nobody asks any more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the library prints is no answer
    for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_AS, MEMORY)):
        resource.setrlimit(limit, (value, value))
    from groupwise.tasks.gym.guards import guard

    import_module("reasoning_gym")
    guard("reasoning_gym")
    for line in sys.stdin:
        answers.write(json.dumps(_answered(json.loads(line))) + "\n")
        answers.flush()


def _answered(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"ok": _DO[request.pop("do")](**request)}
    except Exception as error:  # whatever a generator or a verifier raises
        return {"error": f"{type(error).__name__}: {error}".strip(": ")[:2000]}


def _names() -> list[str]:
    factory: Any = import_module("reasoning_gym.factory")
    return sorted(name for name in factory.DATASETS if name != "composite")


def _describe(set: str, difficulty: int | None = None) -> dict[str, Any]:
    """The settings that a set has, with their defaults, or what its curriculum makes of them at a difficulty."""
    factory: Any = import_module("reasoning_gym.factory")
    make = factory.DATASETS[set][1]
    config = make()
    if difficulty is not None:
        if set not in factory.CURRICULA:
            raise LookupError("it has no levels of difficulty")
        curriculum = factory.CURRICULA[set]()
        for name, attribute in curriculum.attributes.items():
            curriculum.set_attr_level(name, min(difficulty, len(attribute.levels) - 1))
        config = curriculum.generate_configuration()
    return {f.name: _storable(vars(config)[f.name]) for f in dataclasses.fields(config)}


def _storable(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


@lru_cache(maxsize=64)
def _made(name: str, settings: str) -> Any:
    return import_module("reasoning_gym").create_dataset(name, **json.loads(settings))


@lru_cache(maxsize=4096)
def _entry(name: str, settings: str, index: int) -> Any:
    return _made(name, settings)[index]


def _entries(set: str, settings: dict[str, Any], indices: list[int]) -> list[list[str | None]]:
    entries = [_entry(set, json.dumps(settings, sort_keys=True), index) for index in indices]
    return [[str(e["question"]), None if e["answer"] is None else str(e["answer"])] for e in entries]


def _score(set: str, settings: dict[str, Any], index: int, answer: str | None) -> float:
    spelled = json.dumps(settings, sort_keys=True)
    try:
        return float(_made(set, spelled).score_answer(answer, _entry(set, spelled, index)))
    except MemoryError:
        raise
    except Exception:  # a verifier that raises on a text has found no answer in it
        return 0.0


_DO = {"names": _names, "describe": _describe, "entries": _entries, "score": _score}

if __name__ == "__main__":
    main()
