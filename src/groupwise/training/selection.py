"""The groups of a step: sampled and graded, and where the algorithm drops some, made up for by further problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from groupwise.errors import RecipeError
from groupwise.learner.algorithm import Algorithm
from groupwise.rewards import GradingLog, TrainerState
from groupwise.rewards.log import free_name
from groupwise.rollouts.rollouts import Rollouts
from groupwise.training.problems import Problems
from groupwise.training.report import StepReport
from groupwise.types import Group

MOST_ROUNDS = 100
"""A selection of the user's own that never has enough is stopped here."""


@dataclass(frozen=True, slots=True)
class Selected:
    """All groups that were sampled in a step, and which of them train, by their places."""

    groups: list[Group]
    kept: list[int]
    rounds: int

    @property
    def training(self) -> list[Group]:
        """Those that train."""
        return [self.groups[place] for place in self.kept]

    @property
    def dropped(self) -> list[Group]:
        """Those that do not."""
        return [group for place, group in enumerate(self.groups) if place not in set(self.kept)]

    def trained(self, groups: Sequence[Group]) -> list[Group]:
        """All groups of the step, those that train as they are now."""
        now = dict(zip(self.kept, groups, strict=True))
        return [now.get(place, group) for place, group in enumerate(self.groups)]


async def select(
    problems: Problems,
    wanted: int,
    *,
    rollouts: Rollouts,
    algorithm: Algorithm,
    state: TrainerState,
    report: StepReport,
) -> Selected:
    """Sample and grade rounds of groups until the algorithm has `wanted` of them, or as many as it gets.

    One round of `wanted` groups, unless the algorithm drops groups or samples more than it needs.
    """
    groups: list[Group] = []
    logs = _Logs()
    kept, further = algorithm.selection(rewards_QG=[], wanted=wanted, rounds=0)
    rounds = 0
    while further > 0:
        if rounds == MOST_ROUNDS:
            raise RecipeError(
                f'algorithm.selection = "{algorithm.selection.name}" wants {further} further problems after '
                f"{rounds} rounds of sampling in one step: it has to give up at some number of rounds"
            )
        with report.timed("sample"):
            new = await rollouts.sample(problems.next(further), state.global_step, groups)  # {o_1 .. o_G} ~ pi_old
        log = GradingLog()
        with report.timed("grade"):
            new = await rollouts.grade(new, state, log)  # r_i = R(q, o_i)
        problems.observe(new)
        logs.add(log, sum(len(group.rollouts) for group in new))
        groups += new
        rounds += 1
        rewards_QG = [group.rewards_G for group in groups]
        kept, further = algorithm.selection(rewards_QG=rewards_QG, wanted=wanted, rounds=rounds)
    _check_kept(kept, len(groups), algorithm)
    selected = Selected(groups, kept, rounds)
    logs.pour_into(report.graded)
    if algorithm.section.selection != "everything":
        report.observe_selection(selected.groups, selected.dropped, rounds)
        training = set(kept)
        marks = [place in training for place, group in enumerate(groups) for _ in group.rollouts]
        report.graded.columns[free_name("selected", report.graded.columns)] = marks
    return selected


def _check_kept(kept: Sequence[int], groups: int, algorithm: Algorithm) -> None:
    """One of the user's own was tried on other groups than these."""
    if not kept or len(set(kept)) < len(kept) or not all(0 <= place < groups for place in kept):
        raise RecipeError(
            f'algorithm.selection = "{algorithm.selection.name}" keeps {list(kept)} of the {groups} groups that were '
            "sampled: a step needs one at least, and different places among them"
        )


def masked(groups: Sequence[Group], algorithm: Algorithm) -> list[Group]:
    """The same groups, completions that the token limit cut off masked, if the algorithm asks for it (DAPO's overlong
    filtering, arXiv 2503.14476, section 3.4)."""
    if not algorithm.section.mask_truncated:
        return list(groups)
    return [
        replace(
            group, rollouts=tuple(replace(r, masked=r.completion.finish_reason == "length") for r in group.rollouts)
        )
        for group in groups
    ]


@dataclass(slots=True)
class _Logs:
    """What reward functions logged, round by round; each round's columns have one value for each of its rollouts."""

    rounds: list[tuple[GradingLog, int]] = field(default_factory=list[tuple[GradingLog, int]])

    def add(self, log: GradingLog, rollouts: int) -> None:
        self.rounds.append((log, rollouts))

    def pour_into(self, log: GradingLog) -> None:
        """As one log, `None` where a round has no such column."""
        for name in dict.fromkeys(name for each, _ in self.rounds for name in each.columns):
            values: list[Any] = []
            for each, rollouts in self.rounds:
                values += each.columns.get(name, [None] * rollouts)
            log.columns[name] = values
        for each, _ in self.rounds:
            for name, numbers in each.noted.items():
                log.noted.setdefault(name, []).extend(numbers)
