"""What a program hands over instead of naming it: a model, a task, rows, functions.

A recipe is made of it all the same, so that the run records what it was; what a setting has no use for beside an object
is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from groupwise.config import LoadedRecipe, Recipe, load_recipe
from groupwise.config.sections import ModelSection
from groupwise.errors import RecipeError
from groupwise.models.load import DTYPES, pick_device, prepare_policy
from groupwise.models.policy import Policy
from groupwise.rewards import RewardFunction, as_reward, load_reward, name_of
from groupwise.tasks import Task
from groupwise.tasks.reading import READERS
from groupwise.tasks.rows import rows
from groupwise.training.build import Given
from groupwise.training.mixture import OF_THE_WHOLE

OF_A_NAME = {"id", "revision", "trust_remote_code"}
"""Settings that say where a model comes from."""

IN_MEMORY = "(in memory)"
"""What the recipe of a run says where a program gave an object instead of a name."""

Reward = str | Callable[..., Any] | RewardFunction


def recipe_of(
    model: str | PreTrainedModel,
    task: object,
    rewards: Sequence[Reward],
    settings: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase | None,
) -> tuple[LoadedRecipe, Given]:
    """The recipe that says the same as a call of `Trainer`, and the objects that it cannot hold."""
    _check_kinds(model, settings, tokenizer)
    tree: dict[str, Any] = {"model": {"id": model if isinstance(model, str) else IN_MEMORY}}
    changed = _with_settings({}, settings)
    _refuse_unused(changed, model, task, rewards)
    tree["task"] = _task_section(task)
    tree["rewards"] = [_reward_section(reward) for reward in rewards]
    loaded = load_recipe(_merged(tree, changed))
    given = Given(
        policy=None if isinstance(model, str) else _maker(model, tokenizer),
        task=_given_task(task, loaded.recipe),
        rewards=[_reward_function(reward, loaded.folder) for reward in rewards] or None,
    )
    return loaded, given


def _check_kinds(model: object, settings: object, tokenizer: object) -> None:
    """What is of another kind than it has to be would fail far from here, in words about something else."""
    if not isinstance(model, str | nn.Module):
        raise RecipeError(f"Trainer(model=...) was given a {type(model).__name__}: give an id, a folder, or a model")
    if not isinstance(settings, Mapping):
        raise RecipeError(
            f'Trainer(settings=...) was given a {type(settings).__name__}: settings are a dict, {{"train.steps": 10}}'
        )
    if odd := [key for key in cast("Mapping[object, Any]", settings) if not isinstance(key, str)]:
        raise RecipeError(f"Trainer(settings=...) has the key {odd[0]!r}: the name of a setting is a text")
    if isinstance(model, str) and tokenizer is not None:
        raise RecipeError(f"Trainer was given a tokenizer beside the name {model!r}, which has its own: leave it away")
    if tokenizer is not None and not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise RecipeError(
            f"Trainer(tokenizer=...) was given a {type(tokenizer).__name__}: load it first, "
            "AutoTokenizer.from_pretrained(...)"
        )


def _maker(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> Callable[[Recipe], Policy]:
    if tokenizer is None:
        raise RecipeError("Trainer(model=...) was given a model object: give its tokenizer too, as tokenizer=...")

    made: list[Policy] = []

    def make(recipe: Recipe) -> Policy:
        if made:  # a run that goes on in the same program: adapters are in the model already
            return made[0]
        if recipe.model.dtype != "auto" and model.dtype is not DTYPES[recipe.model.dtype]:
            raise RecipeError(
                f'model.dtype = "{recipe.model.dtype}", but the model that was given is in {model.dtype}: load it with '
                f"dtype={DTYPES[recipe.model.dtype]}, or leave the setting away"
            )
        cast(nn.Module, model).to(pick_device(recipe.model.device))
        made.append(prepare_policy(model, tokenizer, recipe.model, recipe.lora))
        return made[0]

    return make


def _task_section(task: object) -> dict[str, Any]:
    if isinstance(task, Path) or (isinstance(task, str) and Path(task).suffix in READERS):
        raise RecipeError(
            f"Trainer(task=...) was given the path {str(task)!r}: rows of a file are "
            f'task={{"kind": "dataset", "path": {str(task)!a}}}'
        )
    if not isinstance(task, str | Iterable | Task):
        raise RecipeError(
            f"Trainer(task=...) was given a {type(task).__name__}: give a task's name, its settings, a Task, or rows"
        )
    if isinstance(task, str):
        return {"kind": task}
    if isinstance(task, Mapping):
        settings = cast("Mapping[str, Any]", task)
        if splits := [name for name, value in settings.items() if _is_rows(value)]:
            names = ", ".join(map(str, splits))
            raise RecipeError(
                f"Trainer(task=...) was given a {type(task).__name__} with the splits {names}: choose a split, such as "
                f"task=data[{splits[0]!r}]; task.hold_out takes rows out of it to evaluate on"
            )
        return dict(settings)
    return {"kind": "dataset", "path": IN_MEMORY}


def _is_rows(value: object) -> bool:
    """Whether this is a split of a `datasets.DatasetDict` or of a dict of lists: no setting of a task is either."""
    if isinstance(value, list | tuple):
        return any(isinstance(row, Mapping) for row in cast("Sequence[object]", value))
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _given_task(task: Any, recipe: Recipe) -> Task | None:
    if isinstance(task, Task):
        return task
    if isinstance(task, str | Mapping):
        return None
    section = recipe.task
    if section.kind != "dataset":
        raise RecipeError(f'task.kind = "{section.kind}", but the task was given as rows: leave the setting away')
    return rows(
        task,
        columns=section.columns,
        hold_out=section.hold_out,
        limit=section.limit,
        system_prompt=section.system_prompt,
        seed=recipe.seed,
    )


def _reward_function(reward: str | Callable[..., Any] | RewardFunction, folder: Path) -> RewardFunction:
    if isinstance(reward, str):
        return load_reward(reward, folder=folder)
    if isinstance(reward, RewardFunction):
        checked = as_reward(reward.function, reward.weight, reward.settings, name=reward.name)
        return replace(reward, function=checked.function, settings=checked.settings)
    return as_reward(reward)


def _reward_section(reward: str | Callable[..., Any] | RewardFunction) -> dict[str, Any]:
    if isinstance(reward, str):
        return {"function": reward}
    if isinstance(reward, RewardFunction):
        handling = {"on_error": reward.on_error, "deadline": float(reward.deadline), "cache": reward.cache}
        name = f"{IN_MEMORY} {reward.name}" if reward.place is None else reward.place.function
        return {"function": name, "weight": float(reward.weight), **handling}
    return {"function": f"{IN_MEMORY} {name_of(reward)}"}


def _refuse_unused(settings: Mapping[str, Any], model: object, task: object, rewards: Sequence[object]) -> None:
    """A setting that the objects given leave no use for is a mistake, not decoration."""
    about_prompts = {*OF_THE_WHOLE, "tools", "environment"}
    allowed: dict[str, tuple[str, set[str]]] = {}
    if not isinstance(model, str):
        allowed["model"] = ("the model is given as an object", set(ModelSection.model_fields) - OF_A_NAME)
    if isinstance(task, Task):
        allowed["task"] = ("the task is given as an object", about_prompts)
    elif not isinstance(task, str | Mapping):
        used = {"kind", "columns", "hold_out", "limit", "system_prompt"}
        allowed["task"] = ("the task is given as rows", about_prompts | used)
    for section, (why, names) in allowed.items():
        for name in settings.get(section, {}):
            if name not in names:
                raise RecipeError(f"{section}.{name} is set, but {why}, which has no use for it: leave it away")
    if rewards and "rewards" in settings:
        raise RecipeError("rewards are given twice, as an argument and among the settings: give them in one place")


def _with_settings(tree: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """`{"train.steps": 10}` and `{"train": {"steps": 10}}` mean the same."""
    for dotted, value in settings.items():
        for name in reversed(dotted.split(".")):
            value = {name: value}
        tree = _merged(tree, value)
    return tree


def _merged(below: Any, above: Any) -> Any:
    """What is above, and of two mappings also the keys that only the one below has. Changes neither."""
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    lower, upper = cast("Mapping[str, Any]", below), cast("Mapping[str, Any]", above)
    return {**lower, **{key: _merged(lower.get(key), value) for key, value in upper.items()}}
