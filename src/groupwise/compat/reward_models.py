"""Reward functions as TRL takes them: callables, models that classify sequences, ids of such models, mixtures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from groupwise.compat.config import SharedConfig
from groupwise.errors import ModelError, RecipeError, RewardError
from groupwise.models.load import pick_device
from groupwise.rewards import RewardFunction, as_reward, with_unique_names
from groupwise.tasks import World


def reward_functions(
    given: object, processing_classes: object, args: SharedConfig, world: World | None = None
) -> tuple[RewardFunction, ...]:
    """All of them with their weights, named as TRL names them: a function by its name, a model by the last part of
    its id. There may be none where an environment gives rewards of its own."""
    listed: list[Any] = list(given) if isinstance(given, list | tuple) else [] if given is None else [given]
    if not listed and world is not None and world.earns:
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
        model = _loaded(given, args)
        return RewardFunction(
            given.rstrip("/").rpartition("/")[2], ModelReward.of(model, tokenizer, given, args), weight
        )
    if isinstance(given, nn.Module):
        if not isinstance(given, PreTrainedModel):
            raise RewardError(
                f"{type(given).__name__} is no model of transformers: wrap it in a function that returns its scores"
            )
        name = str(given.config.name_or_path)
        short = name.rstrip("/").rpartition("/")[2] or type(given).__name__
        return RewardFunction(short, ModelReward.of(given, tokenizer, name, args), weight)
    return as_reward(cast("Callable[..., Any]", given), weight)


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


class ModelReward:
    """The first logit of a model that classifies sequences: of the prompt and the completion as one text, or of the
    conversation as the model's own chat template renders it."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any) -> None:
        self._model = model.eval()
        self._tokenizer = tokenizer

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: Any, name: str, args: SharedConfig) -> ModelReward:
        """With the model's own tokenizer, if none is given, on the device that training is on."""
        if tokenizer is None:
            try:
                tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=args.trust_remote_code)
            except (OSError, ValueError) as error:
                raise ModelError(
                    f"the reward model {name or type(model).__name__!r} comes without a tokenizer: give it as "
                    "reward_processing_classes"
                ) from error
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        cast(nn.Module, model).to(pick_device("cpu" if args.use_cpu else "auto"))
        return cls(model, tokenizer)

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any]) -> list[float]:
        """One score for each completion."""
        texts = [self._text(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        inputs = self._tokenizer(
            texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False
        ).to(self._model.device)
        return self._model(**inputs).logits[:, 0].float().tolist()

    def _text(self, prompt: Any, completion: Any) -> str:
        if isinstance(prompt, str):
            return prompt + completion
        messages: list[Mapping[str, Any]] = [*prompt, *completion]
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False))
