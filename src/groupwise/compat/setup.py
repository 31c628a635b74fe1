"""What `GRPOTrainer` is called with beside the first eight arguments, checked before anything is loaded."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.trainer_utils import enable_full_determinism
from transformers.utils import logging as transformers_logging

from groupwise.compat.config import GRPOConfig, SharedConfig
from groupwise.errors import ModelError, RecipeError
from groupwise.learner.optimizer import OwnOptimizer, check_available
from groupwise.models.load import pick_device
from groupwise.tasks import World
from groupwise.training.reporter import QuietReporter

FIRST = (
    "model",
    "reward_funcs",
    "args",
    "train_dataset",
    "eval_dataset",
    "processing_class",
    "reward_processing_classes",
    "callbacks",
)
MORE: Mapping[str, Any] = {
    "optimizers": (None, None),
    "quantization_config": None,
    "peft_config": None,
    "tools": None,
    "rollout_func": None,
    "environment_factory": None,
}
"""Keywords that TRL's trainer has, too, and what they are when they are left away."""

REFUSED = {
    "quantization_config": "weights of few bits cannot be trained here: use peft_config and bf16=True",
}
"""What there is not, and what to use instead."""


def checked_more(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords with what is left away filled in; one that TRL does not have is a TypeError that knows better."""
    for name in given:
        if name not in MORE:
            near = difflib.get_close_matches(name, [*FIRST, *MORE], n=1, cutoff=0.5)
            hint = f": did you mean {near[0]!r}?" if near else f". There are {', '.join((*FIRST, *MORE))}"
            raise TypeError(f"GRPOTrainer has no argument {name!r}{hint}")
    for name, words in REFUSED.items():
        if given.get(name) is not None:
            raise RecipeError(f"{name} is not available here: {words}")
    if given.get("rollout_func") is not None and (given.get("tools") or given.get("environment_factory")):
        raise RecipeError("rollout_func holds the whole conversation: let it call the tools and the environment itself")
    return {**MORE, **given}


def turns_settings(args: SharedConfig, worlds: Mapping[str, World]) -> dict[str, Any]:
    """How many turns the model may take: one more than calls of tools, or as many as there is room for."""
    calls = args.max_tool_calling_iterations if isinstance(args, GRPOConfig) else None
    if not worlds:
        return {}
    return {"turns.limit": 1_000 if calls is None else calls + 1}


def checked_args(args: object, kind: type[SharedConfig], model: object) -> SharedConfig:
    """The configuration, or the default one, which writes into a folder named after the model, as in TRL."""
    if isinstance(args, SharedConfig):
        return args
    if args is None:
        name = model if isinstance(model, str) else "model"
        return kind(output_dir=f"{Path(name).name}-{kind.__name__.removesuffix('Config')}")
    raise TypeError(
        f"args is a {type(args).__module__}.{type(args).__name__}: import {kind.__name__} from groupwise.compat.trl, "
        "as the trainer"
    )


def checked_tokenizer(given: object) -> PreTrainedTokenizerBase | None:
    """What reads texts; a processor of images and texts reads more than there is to train on."""
    if given is None or isinstance(given, PreTrainedTokenizerBase):
        return given
    raise ModelError(f"processing_class is a {type(given).__name__}: only texts are trained on here, give a tokenizer")


def own_optimizer(given: Any) -> OwnOptimizer | None:
    """`optimizers=(optimizer, scheduler)` of a script, each of them or none."""
    optimizer, scheduler = given if given is not None else (None, None)
    if optimizer is None and scheduler is not None:
        raise RecipeError("optimizers has a scheduler, which moves an optimizer that it does not have: give both")
    return None if optimizer is None else OwnOptimizer(optimizer, scheduler)


def affordable(settings: Mapping[str, Any], args: SharedConfig, recipe_section: Any) -> tuple[dict[str, Any], str]:
    """An optimizer in 8 bits only where there is one; elsewhere it is the same optimizer in 32, and the script is
    told: it takes more memory and rounds less."""
    if settings["optimizer.kind"] != "adamw_8bit":
        return dict(settings), ""
    try:
        check_available(recipe_section(kind="adamw_8bit"), pick_device("cpu" if args.use_cpu else "auto"))
    except RecipeError as error:
        return {**settings, "optimizer.kind": "adamw"}, f"optim = {args.optim!r}: AdamW in 32 bits instead. {error}"
    return dict(settings), ""


def prepare_process(args: SharedConfig) -> None:
    """What a configuration asks of the whole process."""
    if args.full_determinism:
        enable_full_determinism(args.seed)
    if args.log_level != "passive":
        transformers_logging.set_verbosity(args.get_process_log_level())


def free_name(folder: Path, name: str) -> str:
    """The name of a run, or with the first number that no run in this folder has: nothing is overwritten."""
    number, free = 1, name
    while (folder / free).exists():
        number += 1
        free = f"{name}-{number}"
    return free


class LoggingReporter(QuietReporter):
    """Passes on what has to be read; steps and evaluations are what callbacks are for."""

    def message(self, text: str) -> None:
        """Into the log of the program."""
        logging.getLogger("groupwise").warning("%s", text)
