"""From a recipe to the parts of a run: policy, task, rewards, prompts, engine, learner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from groupwise.config import LoadedRecipe, Recipe
from groupwise.config.sections import ModelSection
from groupwise.errors import ModelError, TaskError
from groupwise.learner.algorithm import Algorithm
from groupwise.learner.optimizer import OwnOptimizer
from groupwise.models.load import load_policy
from groupwise.models.pinned import check_pin
from groupwise.models.policy import Policy
from groupwise.rewards import RewardFunction, with_unique_names
from groupwise.rewards.code import SandboxSettings, in_sandbox
from groupwise.rollouts.prompts import Fitted, Room, fit, merged
from groupwise.rollouts.rollouts import Sampler
from groupwise.tasks import Task, World
from groupwise.tasks.environments.reward import earned_rewards
from groupwise.training.companion import Companion, Nobody
from groupwise.training.mixture import load_rewards, made_task, with_world
from groupwise.types import Problem, Sampling


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run works with, whether it trains by rewards, on demonstrations, or only evaluates."""

    loaded: LoadedRecipe
    policy: Policy
    task: Task
    rewards: tuple[RewardFunction, ...]
    algorithm: Algorithm
    train: Fitted
    held_out: Fitted | None
    """Problems for evaluation, at most `evaluation.problems`; `None` if the task holds none out."""
    companion: Companion = field(default_factory=Nobody)
    """Who goes along with the run."""
    optimizer: OwnOptimizer | None = None
    """An optimizer that a program brought, in place of the recipe's."""
    sampler: Sampler | None = None
    """What a program brought to sample with, in place of the engine."""

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.loaded.recipe


@dataclass(frozen=True, slots=True)
class Given:
    """Objects that a program hands over instead of naming them in the recipe."""

    policy: Callable[[Recipe], Policy] | None = None
    task: Task | None = None
    world: World | None = None
    rewards: Sequence[RewardFunction] | None = None
    companion: Companion = field(default_factory=Nobody)
    optimizer: OwnOptimizer | None = None
    sampler: Sampler | None = None


def build(loaded: LoadedRecipe, given: Given) -> Parts:
    """Load everything; each mistake is an error of groupwise that says what to do. Cheap parts come first."""
    recipe = loaded.recipe
    algorithm = algorithm_of(loaded)
    rewards = given.rewards if given.rewards is not None else load_rewards(recipe.rewards, loaded)
    task = task_of(loaded) if given.task is None else given.task
    if given.world is not None:
        task = replace(task, environment=given.world)
    elif given.task is not None:
        task = with_world(task, recipe.task, loaded.folder)
    _check_problems(task)
    torch.manual_seed(recipe.seed)  # a new adapter begins with random numbers
    policy = given.policy(recipe) if given.policy is not None else load_policy(located_model(loaded), recipe.lora)
    held_out = task.held_out[: recipe.evaluation.problems]
    # Those of a recipe grade all parts of a mixture, beside what grades each of them.
    own = task.rewards if task.parts or not rewards else ()
    named = with_unique_names([*rewards, *own, *earned_rewards(task)])
    rewards = in_sandbox(named, sandbox_of(recipe))
    return Parts(
        loaded=complete(loaded, algorithm),
        policy=policy,
        task=task,
        rewards=rewards,
        algorithm=replace(algorithm, reward_weights={reward.name: reward.weight for reward in rewards}),
        train=fitted(task.train, task, policy, recipe),
        held_out=fitted(held_out, task, policy, recipe) if held_out else None,
        companion=given.companion,
        optimizer=given.optimizer,
        sampler=given.sampler,
    )


def algorithm_of(loaded: LoadedRecipe) -> Algorithm:
    """The algorithm that the recipe names."""
    recipe = loaded.recipe
    limit, group_size = recipe.sampling.max_new_tokens, recipe.train.group_size
    return Algorithm.of(recipe.algorithm, limit, loaded.folder, group_size=group_size)


def complete(loaded: LoadedRecipe, algorithm: Algorithm) -> LoadedRecipe:
    """The recipe with every setting of the algorithm's entries, which only they know: a default that changes in a later
    version does not change an old run."""
    section = loaded.recipe.algorithm.model_copy(update={"settings": algorithm.settings})
    return replace(loaded, recipe=loaded.recipe.model_copy(update={"algorithm": section}))


def _check_problems(task: Task) -> None:
    if not task.train:
        raise TaskError(f"the task {task.name!r} has no problem to train on")
    for problem in chain(task.train, task.held_out):
        _check_problem(problem, task.name)
    ids = Counter(problem.id for problem in task.train)
    name, count = ids.most_common(1)[0]
    if count > 1:
        raise TaskError(
            f"{count} problems of the task {task.name!r} are called {name!r}: a problem's id is its own, prompts and "
            "random numbers go by it. Number them"
        )


def _check_problem(problem: object, task: str) -> None:
    """A file of the user's may put anything into its `Task`."""
    if not isinstance(problem, Problem):
        raise TaskError(
            f"the task {task!r} holds a {type(problem).__name__}, {ascii(problem)[:60]}, where a Problem belongs: "
            "write Problem(id, prompt, columns), or give the rows themselves instead of a Task"
        )
    prompt = cast(object, problem.prompt)
    if not isinstance(prompt, str | list | tuple):
        raise TaskError(f"{problem.id}: a prompt is a text or a list of messages, not a {type(prompt).__name__}")


def located_model(loaded: LoadedRecipe) -> ModelSection:
    """The model's section, a folder named in it made absolute: it starts where the recipe lies, as all its paths do.

    What is no folder there is an id of the hub.
    """
    section = loaded.recipe.model
    folder = loaded.folder / Path(section.id).expanduser()
    if not folder.is_dir():
        return section
    return check_pin(section, folder).model_copy(update={"id": str(folder.absolute())})


def names_code(recipe: Recipe) -> bool:
    """Whether the recipe names functions of files or packages: code that is run when its parts are made."""
    entries = [value for value in recipe.algorithm.model_dump().values() if isinstance(value, str)]
    named = [*entries, *recipe.algorithm.filters, *(reward.function for reward in recipe.rewards)]
    return recipe.model.trust_remote_code or any(":" in name for name in named)


def task_of(loaded: LoadedRecipe) -> Task:
    """The task that the recipe names."""
    return made_task(loaded.recipe.task, loaded.recipe.task.kind, loaded)


def fitted(problems: Sequence[Problem], task: Task, policy: Policy, recipe: Recipe) -> Fitted:
    """Prompts rendered and held against the limit: what the recipe says, and what the model's context leaves."""
    section = recipe.task
    room = _room(policy, recipe)
    pieces = [
        fit(
            [problem for problem in problems if problem.task == name],
            policy.tokenizer,
            limit=room,
            policy=section.long_prompts,
            style=section.prompt_style,
            system_prompt=part.system_prompt,
            tools=() if part.environment is None else part.environment.tools,
            variables=section.template_variables,
        )
        for name, part in (task.parts or {"": task}).items()
    ]
    prompts = merged(pieces, problems)
    check_vocabulary(policy, prompts.prompt_ids)
    return prompts


def _room(policy: Policy, recipe: Recipe) -> Room:
    """For prompts: what the context leaves beside the completion, or the setting, if that is less."""
    context, completion, asked = policy.context, recipe.sampling.max_new_tokens, recipe.task.max_prompt_tokens
    if asked is not None and asked <= context - completion:
        return Room(asked, f"task.max_prompt_tokens; the model's context holds {context:,}")
    why = f"the model's context of {context:,} tokens less sampling.max_new_tokens = {completion:,}"
    return Room(context - completion, why)


def check_vocabulary(policy: Policy, sequences: Iterable[Sequence[int]]) -> None:
    """A tokenizer of another model may have more tokens than this one knows, which no embedding has a row for."""
    known = int(cast(nn.Embedding, policy.model.get_input_embeddings()).num_embeddings)
    largest = max((max(ids) for ids in sequences if ids), default=0)
    if largest >= known:
        raise ModelError(
            f"the tokenizer gives token {largest}, but the model has embeddings for {known} tokens only: they do not "
            "belong together. Save the model's own tokenizer beside it"
        )


def sampling_of(recipe: Recipe) -> Sampling:
    """The recipe's section as the noun that engines take."""
    values: dict[str, Any] = recipe.sampling.model_dump()
    values |= {name: tuple(values[name]) for name in ("stop", "stop_token_ids")}
    return Sampling(**values, loop_tokens=recipe.loops.tokens)


def sandbox_of(recipe: Recipe) -> SandboxSettings:
    """The recipe's section as the settings that code rewards take."""
    values: dict[str, Any] = recipe.sandbox.model_dump()
    values["packages"] = tuple(recipe.sandbox.packages)
    return SandboxSettings(**values)
