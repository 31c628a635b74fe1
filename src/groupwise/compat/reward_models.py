"""Reward functions as TRL takes them: callables, models that classify sequences, ids of such models, mixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from groupwise.compat.config import SharedConfig
from groupwise.compat.translate import as_dict
from groupwise.errors import ModelError, RecipeError, RewardError
from groupwise.models.load import pick_device
from groupwise.rewards import RewardFunction, RewardModel, as_reward, with_unique_names
from groupwise.tasks import World


def reward_functions(
    given: object, processing_classes: object, args: SharedConfig, worlds: Iterable[World] = ()
) -> tuple[RewardFunction, ...]:
    """All of them with their weights, named as TRL names them: a function by its name, a model by the last part of
    its id. There may be none where an environment gives rewards of its own."""
    listed: list[Any] = list(given) if isinstance(given, list | tuple) else [] if given is None else [given]
    if not listed and any(world.earns for world in worlds):
        return ()
    if not listed:
        raise RewardError("reward_funcs is empty: give a function, a model that classifies sequences, or its id")
    tokenizers: list[Any] = (
        list(processing_classes) if isinstance(processing_classes, list | tuple) else [processing_classes]
    )
    tokenizers = [None] * len(listed) if processing_classes is None else tokenizers
    if len(tokenizers) != len(listed):
        raise RecipeError(
            f"reward_processing_classes has {len(tokenizers)} entries for {len(listed)} reward functions: "
            "give one for each, None for a function"
        )
    weights = [1.0] * len(listed) if args.reward_weights is None else [float(weight) for weight in args.reward_weights]
    if len(weights) != len(listed):
        raise RecipeError(f"reward_weights has {len(weights)} entries for {len(listed)} reward functions")
    made = [_reward(*entry, args) for entry in zip(listed, tokenizers, weights, strict=True)]
    return with_unique_names(made)


def _reward(given: Any, tokenizer: Any, weight: float, args: SharedConfig) -> RewardFunction:
    if isinstance(given, str):
        return _of_model(_loaded(given, args), given, tokenizer, weight, args)
    if isinstance(given, nn.Module):
        if not isinstance(given, PreTrainedModel):
            raise RewardError(
                f"{type(given).__name__} is no model of transformers: wrap it in a function that returns its scores"
            )
        return _of_model(given, str(given.config.name_or_path), tokenizer, weight, args)
    return as_reward(cast("Callable[..., Any]", given), weight)


def _of_model(model: PreTrainedModel, name: str, tokenizer: Any, weight: float, args: SharedConfig) -> RewardFunction:
    """With the model's own tokenizer, if none is given, on the device that training is on."""
    short = name.rstrip("/").rpartition("/")[2] or type(model).__name__
    if tokenizer is None:
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=args.trust_remote_code)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"the reward model {name or short!r} comes without a tokenizer: give it as reward_processing_classes"
            ) from error
    module = cast(nn.Module, model).to(pick_device("cpu" if args.use_cpu else "auto"))
    variables = as_dict(args.chat_template_kwargs)
    return RewardFunction(short, RewardModel(module, tokenizer, name=short, variables=variables), weight)


def _loaded(name: str, args: SharedConfig) -> PreTrainedModel:
    try:
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            name, num_labels=1, trust_remote_code=args.trust_remote_code
        )
    except (OSError, ValueError, RuntimeError) as error:
        first = f"{error}".partition("\n")[0]
        raise ModelError(
            f"reward_funcs names {name!r}: a text is the id or folder of a model that classifies sequences, and this "
            f"one could not be loaded ({first})"
        ) from error
    return cast(PreTrainedModel, model)
