"""From a recipe to the parts of a run: policy, task, rewards, prompts, engine, learner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groupwise.config import LoadedRecipe, Recipe
from groupwise.config.sections import TaskSection
from groupwise.errors import TaskError
from groupwise.models.load import load_policy
from groupwise.models.policy import Policy
from groupwise.rewards import RewardFunction, load_reward
from groupwise.rewards.grading import with_unique_names
from groupwise.rollouts.prompts import Fitted, fit
from groupwise.tasks import Task, build_task
from groupwise.types import Problem, Sampling

ABOUT_PROMPTS = frozenset({"kind", *TaskSection.model_fields}) - {"system_prompt"}
"""Settings of a task's section that say how prompts are rendered; the rest is handed to the task."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run works with, whether it trains by rewards, on demonstrations, or only evaluates."""

    loaded: LoadedRecipe
    policy: Policy
    task: Task
    rewards: tuple[RewardFunction, ...]
    train: Fitted
    held_out: Fitted | None
    """Problems for evaluation, at most `evaluation.problems`; `None` if the task holds none out."""

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.loaded.recipe


@dataclass(frozen=True, slots=True)
class Given:
    """Objects that a program hands over instead of naming them in the recipe."""

    policy: Callable[[Recipe], Policy] | None = None
    task: Task | None = None
    rewards: Sequence[RewardFunction] | None = None


def build(loaded: LoadedRecipe, given: Given) -> Parts:
    """Load everything; each mistake is an error of groupwise that says what to do. Cheap parts come first."""
    recipe = loaded.recipe
    rewards = given.rewards if given.rewards is not None else _rewards_of(loaded)
    task = given.task if given.task is not None else task_of(loaded)
    if not task.train:
        raise TaskError(f"the task {task.name!r} has no problem to train on")
    policy = given.policy(recipe) if given.policy is not None else load_policy(recipe.model, recipe.lora)
    held_out = task.held_out[: recipe.evaluation.problems]
    return Parts(
        loaded=loaded,
        policy=policy,
        task=task,
        rewards=with_unique_names(rewards or task.rewards),
        train=fitted(task.train, task, policy, recipe),
        held_out=fitted(held_out, task, policy, recipe) if held_out else None,
    )


def task_of(loaded: LoadedRecipe) -> Task:
    """The task that the recipe names."""
    section = loaded.recipe.task
    settings: Mapping[str, Any] = section.model_dump(exclude=set(ABOUT_PROMPTS))
    return build_task(section.kind, settings, seed=loaded.recipe.seed, folder=loaded.folder)


def fitted(problems: Sequence[Problem], task: Task, policy: Policy, recipe: Recipe) -> Fitted:
    """Prompts rendered and held against the limit: what the recipe says, and what the model's context leaves."""
    section = recipe.task
    room = policy.context - recipe.sampling.max_new_tokens
    return fit(
        problems,
        policy.tokenizer,
        limit=room if section.max_prompt_tokens is None else min(room, section.max_prompt_tokens),
        policy=section.long_prompts,
        style=section.prompt_style,
        system_prompt=task.system_prompt,
    )


def sampling_of(recipe: Recipe) -> Sampling:
    """The recipe's section as the noun that engines take."""
    values: dict[str, Any] = recipe.sampling.model_dump()
    values |= {name: tuple(values[name]) for name in ("stop", "stop_token_ids")}
    return Sampling(**values)


def _rewards_of(loaded: LoadedRecipe) -> list[RewardFunction]:
    return [
        load_reward(section.function, section.weight, section.settings, loaded.folder)
        for section in loaded.recipe.rewards
    ]
