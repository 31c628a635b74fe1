"""Null policies: completions that no policy should be paid for, put to the rewards before anything is trained.

    empty             nothing at all
    blank             white space
    echo              the prompt again
    every answer      all gold answers of the data, one after another, in the marks in which answers are stated
    digits            an answer for each digit, all of them
    longest           ten thousand words
    only the layout   tags and boxes with nothing in them

A reward that pays one of them as much as it pays a right answer will be paid by the model that way, sooner or later.

    for score in asyncio.run(null_scores(task.rewards, problems)):
        print(score.policy, score.mean, score.pays)
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

from groupwise.rewards.contract import Answers, RewardFunction
from groupwise.rewards.grading import grade
from groupwise.types import Problem, Prompt

_CANDIDATES = 1000
_PROBLEMS = 32


@dataclass(frozen=True, slots=True)
class NullScore:
    """What one null policy earns from one reward function: the mean, and the row where it earned most."""

    policy: str
    function: str
    mean: float
    best: float
    sample: str
    """The completion that earned most, shortened, in ASCII."""
    graded: int

    @property
    def pays(self) -> bool:
        """Whether it is paid for nothing."""
        return self.best > 0


def null_policies(problems: Sequence[Problem]) -> dict[str, Callable[[Problem], str]]:
    """Each policy as a function from a problem to a completion. `problems` say which answers there are."""
    golds = list(dict.fromkeys(str(p.columns["answer"]) for p in problems if p.columns.get("answer") is not None))
    golds = [*golds[:_CANDIDATES], "1", "2", "3"]

    def every(before: str, between: str, after: str) -> Callable[[Problem], str]:
        """All of them, the problem's own in the middle: neither the first nor the last is right by chance."""

        def complete(problem: Problem) -> str:
            own = str(problem.columns.get("answer", ""))
            others = [gold for gold in golds if gold != own]
            half = len(others) // 2
            return before + between.join([*others[:half], own, *others[half:]]) + after

        return complete

    digits = " ".join(f"<answer>{digit}</answer> \\boxed{{{digit}}}" for digit in range(10))
    return {
        "empty": lambda problem: "",
        "blank": lambda problem: " \n\t\n ",
        "echo": lambda problem: prompt_text(problem.prompt),
        "every answer": every("", "\n", ""),
        "every answer in one tag": every("<answer>", ", ", "</answer>"),
        "every answer in tags of its own": every("<answer>", "</answer>\n<answer>", "</answer>"),
        "every answer in boxes": every(r"\boxed{", r"} \boxed{", "}"),
        "every answer behind ####": every("#### ", "\n#### ", ""),
        "digits": lambda problem: digits,
        "longest": lambda problem: "so " * 10_000,
        "only the layout": lambda problem: "<reasoning>\n</reasoning>\n<answer>\n</answer>\n<think></think> \\boxed{}",
    }


def prompt_text(prompt: Prompt) -> str:
    """A prompt as a model could repeat it."""
    return prompt if isinstance(prompt, str) else "\n".join(_said(message) for message in prompt)


def _said(message: Mapping[str, object]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else json.dumps(content, default=str)


AnswersOf: TypeAlias = Callable[[Sequence[Problem], Sequence[str]], Awaitable[Answers]]
"""From problems and what is said to each of them to the batch that is graded."""


async def null_scores(
    rewards: Sequence[RewardFunction],
    problems: Sequence[Problem],
    *,
    limit: int = _PROBLEMS,
    answers_of: AnswersOf | None = None,
) -> list[NullScore]:
    """What every null policy earns from every function, on the first problems. What cannot be graded is left out."""
    some = list(problems[:limit])
    scores: list[NullScore] = []
    for policy, complete in null_policies(problems).items():
        completions = [complete(problem) for problem in some]
        grades = await grade(rewards, await (answers_of or _in_one_turn)(some, completions))
        for function in grades[0].parts if grades else ():
            parts = [(part, row) for row, g in enumerate(grades) if (part := g.parts[function]) is not None]
            if parts:
                best, row = max(parts, key=lambda pair: pair[0])
                mean = fmean(part for part, _ in parts)
                scores.append(NullScore(policy, function, mean, best, ascii(completions[row][:120])[1:-1], len(parts)))
    return scores


async def _in_one_turn(problems: Sequence[Problem], completions: Sequence[str]) -> Answers:
    names = list(dict.fromkeys(name for problem in problems for name in problem.columns))
    return Answers(
        prompts=[problem.prompt for problem in problems],
        completions=completions,
        completion_ids=[list(range(len(text.split()) + 1)) for text in completions],
        finish_reasons=["stop" for _ in problems],
        columns={name: [problem.columns.get(name) for problem in problems] for name in names},
    )
