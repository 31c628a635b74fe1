"""Mixtures in a run: made from the recipe's parts, and drawn from by weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from groupwise.config import LoadedRecipe
from groupwise.config.sections import RewardSection
from groupwise.config.tasks import MixtureTask, TaskSection
from groupwise.errors import RecipeError, TaskError
from groupwise.rewards import RewardFunction, load_reward
from groupwise.tasks import Task, build_task
from groupwise.tasks.environments.load import load_world
from groupwise.tasks.mixture import Part
from groupwise.training.problems import Epochs
from groupwise.types import Group, Problem

OF_THE_WHOLE = ("prompt_style", "template_variables", "max_prompt_tokens", "long_prompts")
"""Settings about prompts that hold for all parts of a mixture."""

ABOUT_PROMPTS = frozenset({"kind", *TaskSection.model_fields}) - {"system_prompt"}
"""Settings of a task's section that say how prompts are rendered; the rest is handed to the task."""


def made_task(section: TaskSection, kind: str, loaded: LoadedRecipe) -> Task:
    """The task of a section, with its environment or its tools."""
    seed, folder = loaded.recipe.seed, loaded.folder
    settings: Mapping[str, Any] = section.model_dump(exclude=set(ABOUT_PROMPTS))
    if isinstance(section, MixtureTask):
        settings = {"parts": _parts(section, loaded), "system_prompt": section.system_prompt}
    return with_world(build_task(kind, settings, seed=seed, folder=folder), section, folder)


def with_world(task: Task, section: TaskSection, folder: Path) -> Task:
    """The task with the environment or the tools that its section names."""
    world = load_world(section.tools, section.environment, folder)
    if world is not None and task.parts:
        raise RecipeError("task.tools and task.environment belong to a part of a mixture: put them into its task")
    return task if world is None else replace(task, environment=world)


def load_rewards(sections: Sequence[RewardSection], loaded: LoadedRecipe) -> list[RewardFunction]:
    """The reward functions that sections of the recipe name."""
    return [
        load_reward(section.function, section.weight, section.settings, loaded.folder, **section.handling)
        for section in sections
    ]


def _parts(section: MixtureTask, loaded: LoadedRecipe) -> list[Part]:
    made: list[Part] = []
    for part in section.parts:
        if unused := [name for name in OF_THE_WHOLE if name in part.task.model_fields_set]:
            raise RecipeError(
                f"task.parts, {part.name!r}: {unused[0]} holds for all parts: set task.{unused[0]} instead"
            )
        try:
            task = made_task(part.task, part.task.kind, loaded)
        except TaskError as error:
            raise TaskError(f"task.parts, {part.name!r}: {error}") from error
        made.append(Part(part.name, task, part.weight, load_rewards(part.rewards, loaded)))
    return made


class ByTask:
    """Draws a part by weight, then the next problem of that part's own epochs.

    Example: with weights 2 and 1 two of three problems are of the first part, whatever the sizes are.
    """

    def __init__(self, problems: Sequence[Problem], weights: Mapping[str, float], seed: int) -> None:
        of = {name: [problem for problem in problems if problem.task == name] for name in weights}
        if empty := [name for name, its in of.items() if not its]:
            raise TaskError(f"no problem of the part {empty[0]!r} is left to train on")
        self._epochs = {name: Epochs(its, seed) for name, its in of.items()}
        self._drawn = dict.fromkeys(of, 0)
        self._names = list(of)
        self._shares = np.cumsum([weights[name] for name in self._names]) / sum(weights.values())
        self._seed = seed
        self._total = len(problems)

    @property
    def epoch(self) -> float:
        """How many times through as many problems as there are."""
        return sum(self._drawn.values()) / self._total

    def next(self, count: int) -> list[Problem]:
        """The next so many. What is drawn at a place depends on the seed and the place alone."""
        return [self._one() for _ in range(count)]

    def _one(self) -> Problem:
        place = sum(self._drawn.values())
        number = np.random.Generator(np.random.Philox(key=[self._seed, place])).random()
        name = self._names[min(int(np.searchsorted(self._shares, number, side="right")), len(self._names) - 1)]
        (problem,) = self._epochs[name].batch(self._drawn[name], 1)
        self._drawn[name] += 1
        return problem

    def observe(self, groups: Sequence[Group]) -> None:
        """Nothing is learnt: the weights are the weights."""

    def state(self) -> dict[str, Any]:
        """How many were drawn of each part."""
        return {"drawn": dict(self._drawn)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on there."""
        if set(state["drawn"]) != set(self._drawn):
            raise TaskError(
                f"the run was a mixture of {', '.join(state['drawn'])}, and is now of {', '.join(self._drawn)}"
            )
        self._drawn = {name: int(state["drawn"][name]) for name in self._names}
