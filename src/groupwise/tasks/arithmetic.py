"""Generated sums and differences: nothing to download, as hard as you like, and every answer is known.

    problem        347+589=?
    demonstration  <reasoning>7+9+0=16;4+8+1=13;3+5+1=09</reasoning><answer>936</answer>

Held-out problems are never trained on, and neither are their rearrangements: `589+347=?` is kept out of training
together with `347+589=?`, and `5-2+3=?` together with `5+3-2=?`. For the same numbers with the same signs have the same
answer, and a model that has seen the one has as good as seen the other.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from groupwise.errors import TaskError
from groupwise.rewards import agreement, as_reward, correctness, last_answer, tag_count
from groupwise.tasks.carry import worked_out
from groupwise.tasks.task import Task, system_words
from groupwise.types import Problem

SYSTEM_PROMPT = (
    "Work the sum out digit by digit, from right to left, then give the result. Write exactly:\n"
    "<reasoning>your working</reasoning><answer>the result, only the number</answer>"
)

TRAIN_SIZE, EVAL_SIZE, EVAL_SHARE = 20_000, 256, 10
"""Sizes that nobody asked for. At most one of so many problems is held out."""
_SHUFFLED_WHOLE = 100_000
"""Up to so many possible problems, all of them are shuffled; above, they are drawn until they are new."""


def arithmetic(
    *,
    digits: int = 3,
    terms: int = 2,
    operations: Sequence[str] = ("+",),
    train_size: int | None = None,
    eval_size: int | None = None,
    worked: float = 1.0,
    system_prompt: str | None = None,
    seed: int = 0,
) -> Task:
    """Problems with `terms` numbers of exactly `digits` digits each (1 to 9, 10 to 99, ...).

    No two are alike, and the same seed gives the same ones. More training problems, or fewer, leave the held-out ones
    as they are. `worked` is the share of the demonstrations that reason before they answer. Sizes that are left open
    are 20,000 and 256, or what fits where there are few problems; one that was asked for and does not fit is a
    TaskError.

    Example: `arithmetic(digits=2, terms=3, operations=["+", "-"], train_size=1000, eval_size=100)`
    """
    space = _Space(digits, terms, operations)
    held_out, train = _divided(space, train_size, eval_size, random.Random(seed))
    return Task(
        name="arithmetic",
        train=[_problem(f"arithmetic/train/{index}", signed) for index, signed in enumerate(train)],
        held_out=[_problem(f"arithmetic/eval/{index}", signed) for index, signed in enumerate(held_out)],
        rewards=(as_reward(correctness), as_reward(tag_count)),
        is_correct=_is_correct,
        system_prompt=system_words(system_prompt, SYSTEM_PROMPT, "arithmetic"),
        demonstrations=partial(demonstrate, worked=worked),
    )


def demonstrate(problem: Problem, *, worked: float = 1.0) -> str:
    """A correct completion in the tags. Needs no model: it is computed from the numbers.

    The share `worked` of all problems is worked out with its carries, the rest is answered at once; which is which
    depends on the problem alone.
    """
    answer = f"<answer>{problem.columns['answer']}</answer>"
    if random.Random(problem.id).random() >= worked:
        return answer
    return f"<reasoning>{worked_out(problem.columns['terms'])}</reasoning>{answer}"


class _Space:
    """All problems of a difficulty, by index: an index in base `numbers`, above it the choice of operations."""

    def __init__(self, digits: int, terms: int, operations: Sequence[str]) -> None:
        unknown = [operation for operation in operations if operation not in ("+", "-")]
        if digits < 1 or terms < 2 or unknown or not operations:
            raise TaskError(
                f"arithmetic needs digits >= 1, terms >= 2 and operations out of '+' and '-'; got digits = {digits}, "
                f"terms = {terms}, operations = {list(operations)}"
            )
        self.terms = terms
        self.signs = [1 if operation == "+" else -1 for operation in sorted(set(operations))]
        self.smallest = 10 ** (digits - 1)  # so no number is 0, and no 5-0 is 5+0 again
        self.numbers = 10**digits - self.smallest
        self.size = self.numbers**terms * len(self.signs) ** (terms - 1)

    def problem(self, index: int) -> tuple[int, ...]:
        """The signed terms of a problem. Example: `347-589` -> `(347, -589)`"""
        signed: list[int] = []
        for position in range(self.terms):
            index, number = divmod(index, self.numbers)
            sign = 1
            if position > 0:
                index, choice = divmod(index, len(self.signs))
                sign = self.signs[choice]
            signed.append(sign * (number + self.smallest))
        return tuple(signed)

    def in_random_order(self, rng: random.Random) -> Iterator[tuple[int, ...]]:
        """Every problem once."""
        if self.size <= _SHUFFLED_WHOLE:
            for index in rng.sample(range(self.size), self.size):
                yield self.problem(index)
            return
        seen: set[int] = set()
        while len(seen) < self.size:
            index = rng.randrange(self.size)
            if index not in seen:
                seen.add(index)
                yield self.problem(index)


def _divided(
    space: _Space, train_size: int | None, eval_size: int | None, rng: random.Random
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    fitting = train_size is None
    train_size = TRAIN_SIZE if train_size is None else train_size
    eval_size = max(1, min(EVAL_SIZE, space.size // EVAL_SHARE)) if eval_size is None else eval_size
    held_out: dict[tuple[int, ...], tuple[int, ...]] = {}
    train: list[tuple[int, ...]] = []
    for signed in space.in_random_order(rng):
        same_numbers = tuple(sorted(signed))
        if same_numbers in held_out:
            continue
        if len(held_out) < eval_size:
            held_out[same_numbers] = signed
        elif len(train) < train_size:
            train.append(signed)
        else:
            break
    if len(held_out) < eval_size or len(train) < (1 if fitting else train_size):
        raise TaskError(
            f"there are only {space.size} different problems of this kind, enough for {len(held_out)} held-out and "
            f"{len(train)} training ones beside them, not for task.eval_size = {eval_size} and task.train_size = "
            f"{train_size}: lower these, or raise task.digits or task.terms"
        )
    return list(held_out.values()), train


def _problem(identity: str, signed: tuple[int, ...]) -> Problem:
    text = str(signed[0]) + "".join(f"{'-' if term < 0 else '+'}{abs(term)}" for term in signed[1:])
    return Problem(identity, f"{text}=?", {"answer": str(sum(signed)), "terms": list(signed)})


def _is_correct(text: str, columns: Mapping[str, Any]) -> bool:
    return agreement(last_answer(text), columns["answer"]) is not None
