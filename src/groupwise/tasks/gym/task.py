"""`task.kind = "reasoning_gym"`: procedural problems (reasoning-gym, arXiv 2505.24760), graded by their own verifiers.

    [task]
    kind = "reasoning_gym"
    name = "countdown"                                     # one set ...
    settings = {min_numbers = 3, max_numbers = 4}

    sets = [{name = "chain_sum", weight = 2}, {name = "maze", difficulty = 1}]     # ... or several, by weight

A verifier gives between 0 and 1, and 1 is right. An answer on which it takes longer than its deadline is wrong.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groupwise.errors import TaskError
from groupwise.rewards import as_reward, last_answer
from groupwise.rewards.outcomes import Mark, Wrong
from groupwise.rewards.settings import did_you_mean
from groupwise.rewards.texts import Answer, text_of
from groupwise.tasks.gym.process import AskedTooMuchError, process
from groupwise.tasks.task import Task, system_words
from groupwise.types import Problem

SYSTEM_PROMPT = (
    "Think the problem through step by step, then give the answer, and nothing else, between tags:\n"
    "<answer>your answer</answer>"
)

DEADLINE = 5.0
"""Seconds that a verifier has for one answer."""

_MAKE_SECONDS = 300.0
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class _Set:
    """One set with all that decides about its problems."""

    name: str
    weight: float
    settings: Mapping[str, Any]


def reasoning_gym(
    *,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    difficulty: int | None = None,
    sets: Sequence[Mapping[str, Any]] = (),
    train_size: int = 1000,
    eval_size: int = 100,
    system_prompt: str | None = None,
    seed: int = 0,
) -> Task:
    """Problems of one set, or of several drawn by weight; no question is both trained on and held out.

    Example: `reasoning_gym(name="countdown", settings={"max_numbers": 4}, train_size=200)`
    """
    if bool(name) == bool(sets):
        raise TaskError("reasoning_gym takes either task.name, one set, or task.sets, a list of them: give one of them")
    if sets and (settings or difficulty is not None):
        raise TaskError("task.settings and task.difficulty belong to task.name: in task.sets each set has its own")
    asked = sets or [{"name": name, "settings": settings or {}, "difficulty": difficulty}]
    chosen = [_resolved(one, seed * 1_000_003, train_size + eval_size) for one in asked]
    problems = _problems(chosen, train_size + eval_size, seed)
    held_out, train = _divided(problems, eval_size)
    return Task(
        name=name or "reasoning_gym",
        train=train,
        held_out=held_out,
        rewards=(as_reward(verified),),
        is_correct=is_solved,
        system_prompt=system_words(system_prompt, SYSTEM_PROMPT, "reasoning_gym"),
        # Some sets have no answer of their own, only a verifier.
        demonstrations=_demonstrated if all(p.columns["answer"] is not None for p in problems) else None,
    )


def verified(
    completions: Sequence[Answer],
    gym: Sequence[Mapping[str, Any] | None],
    log_metric: Callable[[str, float], None] | None = None,
) -> list[Mark]:
    """The score that each problem's own verifier gives the answer, 0 to 1; wrong where the answer breaks its limits.

    The answer is what the last `<answer>` block says, or the whole text where there is none."""
    scores = [
        None if spec is None else _score(text_of(completion), spec)
        for completion, spec in zip(completions, gym, strict=True)
    ]
    if log_metric is not None and scores:
        log_metric("gym/over_limit", sum(score == _OVER_LIMIT for score in scores) / len(scores))
    limit = Wrong(f"its verifier was not done with this answer after {DEADLINE} s, or ran out of memory", 0.0)
    return [limit if score == _OVER_LIMIT else score for score in scores]


def is_solved(text: str, columns: Mapping[str, Any]) -> bool:
    """Whether the verifier gives the full score."""
    return _score(text, columns["gym"]) >= 1.0


_OVER_LIMIT = -1.0


def _score(text: str, spec: Mapping[str, Any]) -> float:
    answer = last_answer(text) if "<answer>" in text else text.strip()
    try:
        return process().ask("score", DEADLINE, **spec, answer=answer)
    except AskedTooMuchError:
        return _OVER_LIMIT
    except TaskError as error:
        if "MemoryError" in str(error):
            return _OVER_LIMIT
        raise


def _resolved(asked: Mapping[str, Any], seed: int, size: int) -> _Set:
    """The set with its difficulty and its own settings put together and proven by making it."""
    name, level = str(asked["name"]), asked.get("difficulty")
    names = process().ask("names", _MAKE_SECONDS)
    if name not in names:
        raise TaskError(
            f"reasoning-gym has no set {name!r}{did_you_mean(name, names)}. It has {len(names)}: {', '.join(names)}"
        )
    known = process().ask("describe", _MAKE_SECONDS, set=name)
    own = dict(asked.get("settings") or {})
    for setting in own:
        if setting not in known or setting in ("seed", "size"):
            hint = did_you_mean(setting, known)
            listed = ", ".join(f"{k} = {v!r}" for k, v in known.items() if k not in ("seed", "size"))
            raise TaskError(f"the set {name!r} of reasoning-gym has no setting {setting!r}{hint}. It has: {listed}")
    try:
        if level is not None:
            levelled = process().ask("describe", _MAKE_SECONDS, set=name, difficulty=level)
            own = {key: value for key, value in levelled.items() if value != known[key]} | own
        settings = {**own, "seed": seed, "size": size}
        process().ask("entries", _MAKE_SECONDS, set=name, settings=settings, indices=[0])
    except (TaskError, AskedTooMuchError) as error:
        raise TaskError(
            f"the set {name!r} of reasoning-gym cannot be made with difficulty = {level} and settings = {own}: {error}"
        ) from error
    return _Set(name, float(asked.get("weight", 1.0)), settings)


def _problems(sets: Sequence[_Set], count: int, seed: int) -> list[Problem]:
    """The i-th problem is the i-th of the set that is drawn for it."""
    drawn = random.Random(seed).choices(range(len(sets)), [one.weight for one in sets], k=count)
    made: dict[int, Problem] = {}
    for place, one in enumerate(sets):
        indices = [index for index, which in enumerate(drawn) if which == place]
        for start in range(0, len(indices), _AT_ONCE):
            piece = indices[start : start + _AT_ONCE]
            request = {"set": one.name, "settings": one.settings}
            entries = process().ask("entries", _MAKE_SECONDS, **request, indices=piece)
            for index, (question, answer) in zip(piece, entries, strict=True):
                columns = {"answer": answer, "gym": {**request, "index": index}}
                made[index] = Problem(f"{one.name}/{index}", question, columns)
    return [made[index] for index in range(count)]


def _divided(problems: Sequence[Problem], eval_size: int) -> tuple[list[Problem], list[Problem]]:
    """Different questions to hold out, and all problems that ask none of them."""
    held_out: dict[Any, Problem] = {}
    for problem in problems:
        if len(held_out) < eval_size:
            held_out.setdefault(problem.prompt, problem)
    train = [problem for problem in problems if problem.prompt not in held_out]
    if not train:
        raise TaskError(
            f"these settings give only {len(held_out)} different questions in {len(problems)} draws, and "
            f"task.eval_size = {eval_size} holds all of them out: lower it, or make the set more difficult"
        )
    return list(held_out.values()), train


def _demonstrated(problem: Problem) -> str:
    return f"<answer>{problem.columns['answer']}</answer>"
