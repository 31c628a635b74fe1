"""From a TRL configuration to the settings of a recipe, and to what a script has to be told.

    translated = translate(GRPOConfig(learning_rate=2e-5, warmup_steps=0.1), problems=7_473)
    translated.settings["optimizer.lr"]      2e-05
    translated.said                          ("use_vllm ...",)

Fields that say when to log, evaluate, save or upload are no settings of a recipe: the trainer reads them itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from groupwise.compat.batches import Batches, batches_of
from groupwise.compat.config import GRPOConfig, SharedConfig
from groupwise.compat.objective import algorithm_settings, reference_settings
from groupwise.compat.rules import RULES, UNKNOWN
from groupwise.errors import RecipeError

ADAMW = ("adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused", "paged_adamw_32bit")
EIGHT_BITS = ("adamw_8bit", "adamw_bnb_8bit", "adamw_torch_8bit", "paged_adamw_8bit")
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant", "constant_with_warmup": "constant"}
DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "auto": "auto"}
SAMPLED = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "max_new_tokens": "max_new_tokens",
    "stop_strings": "stop",
    "eos_token_id": "stop_token_ids",
}
"""What `generation_kwargs` may hold, and what it is called here."""

Only = tuple[Callable[[Any], bool], str]
_WITHOUT_CLIP: Only = (
    lambda args: args.loss_type not in ("sapo", "vespo"),
    'loss_type "sapo" and "vespo" clip nothing',
)
_ONLY: Mapping[str, Only] = {
    **{f"sapo_temperature_{sign}": (lambda args: args.loss_type == "sapo", 'loss_type is not "sapo"') for sign in
       ("pos", "neg")},
    **{f"vespo_{what}": (lambda args: args.loss_type == "vespo", 'loss_type is not "vespo"') for what in
       ("k_pos", "k_neg", "lambda_pos", "lambda_neg")},
    **{f"entropy_{what}": (lambda args: args.use_adaptive_entropy, "use_adaptive_entropy is not set") for what in
       ("coef_min", "coef_max", "coef_delta", "target")},
    **{f"ref_model_{what}": (lambda args: args.sync_ref_model, "sync_ref_model is not set") for what in
       ("mixup_alpha", "sync_steps")},
    "use_bias_correction_kl": (lambda args: args.beta > 0, "beta is 0, so there is no KL"),
    "epsilon": (lambda args: not isinstance(args, GRPOConfig) or _WITHOUT_CLIP[0](args), _WITHOUT_CLIP[1]),
    "epsilon_high": (lambda args: not isinstance(args, GRPOConfig) or _WITHOUT_CLIP[0](args), _WITHOUT_CLIP[1]),
    "delta": (lambda args: args.loss_type not in ("sapo", "vespo", "cispo"), "this loss_type has no clipped ratio"),
    "num_completions_to_print": (lambda args: args.log_completions, "log_completions is not set"),
    "log_unique_prompts": (lambda args: args.log_completions, "log_completions is not set"),
    "eval_steps": (lambda args: args.eval_strategy == "steps", 'eval_strategy is not "steps"'),
    "eval_delay": (lambda args: args.eval_strategy != "no", "eval_strategy is not set"),
    "save_steps": (lambda args: args.save_strategy == "steps", 'save_strategy is not "steps"'),
    "logging_steps": (lambda args: args.logging_strategy == "steps", 'logging_strategy is not "steps"'),
}  # fmt: skip
"""Settings that mean something only beside others."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A TRL configuration in our words. `settings` are those of a recipe under dotted names; `said` is what the script
    should be told, each sentence beginning with the name of the field."""

    settings: Mapping[str, Any]
    batches: Batches
    said: tuple[str, ...]


def chosen_of(args: SharedConfig) -> dict[str, Any]:
    """The fields that are not as a configuration without arguments has them, with their values."""
    usual: Any = type(args)()
    values: Any = args
    return {
        field.name: vars(values)[field.name]
        for field in fields(args)
        if field.init and vars(values)[field.name] != vars(usual)[field.name]
    }


def translate(args: SharedConfig, problems: int | None) -> Translation:
    """All of it, or one RecipeError with everything that cannot be. `problems`: rows of the training data, if known."""
    chosen = chosen_of(args)
    values = {**vars(args), **chosen}
    refused = [f"{name} = {values[name]!r}: {words}" for name, words in _refusals(args, chosen)]
    refused += [f"{name}: {words}" for name, words in _refused_keys(args)]
    if refused:
        raise RecipeError("not available here:\n  " + "\n  ".join(refused))
    batches = batches_of(args)
    steps = batches.steps(args, problems)
    settings = {
        "seed": args.seed,
        "train.steps": steps,
        "train.prompts_per_step": batches.prompts,
        "train.group_size": args.num_generations,
        "problems.order": "epochs" if args.shuffle_dataset is not False else "data",
        "learner.passes": batches.passes,
        "learner.updates_per_batch": batches.updates,
        **_optimizer(args, steps * batches.optimizer_steps),
        **_sampling(args),
        **algorithm_settings(args),
        **reference_settings(args, batches.optimizer_steps),
        **_model(args),
        **_run(args),
    }
    return Translation(settings, batches, tuple(_said(args, chosen)))


_ALL = 1_000_000


def refused(args: SharedConfig) -> dict[str, str]:
    """The fields whose values there is nothing like here, and what to use instead."""
    keys = {name.partition("[")[0]: f"{name}: {words}" for name, words in _refused_keys(args)}
    return {**dict(_refusals(args, chosen_of(args))), **keys}


def _refusals(args: SharedConfig, chosen: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in chosen:
        rule = RULES.get(name, UNKNOWN)
        if rule.verdict == "refused" and not (name == "router_aux_loss_coef" and chosen[name] == 0):
            yield name, rule.words
    if args.optim not in (*ADAMW, *EIGHT_BITS):
        yield "optim", "make the optimizer yourself: GRPOTrainer(optimizers=(optimizer, scheduler)); AdamW is built in"
    if args.lr_scheduler_type not in SCHEDULES:
        words = f"make the scheduler yourself: optimizers=(optimizer, scheduler); built in are {', '.join(SCHEDULES)}"
        yield "lr_scheduler_type", words
    if args.load_best_model_at_end and args.metric_for_best_model in ("loss", "eval_loss"):
        words = "an evaluation samples and grades, and has no loss: say which of its metrics, such as 'reward'"
        yield "metric_for_best_model", words
    if args.hub_strategy in ("checkpoint", "all_checkpoints"):
        yield "hub_strategy", 'checkpoints stay on this disk: "every_save" and "end" upload the model'


def _refused_keys(args: SharedConfig) -> Iterator[tuple[str, str]]:
    for key in as_dict(args.generation_kwargs):
        if key not in {*SAMPLED, "do_sample"}:
            yield f"generation_kwargs[{key!r}]", f"there are {', '.join(SAMPLED)}"
    for key in as_dict(args.model_init_kwargs):
        if key in ("quantization_config", "load_in_4bit", "load_in_8bit"):
            yield f"model_init_kwargs[{key!r}]", "weights of few bits cannot be trained here: use peft_config and bf16"
        elif key not in (*_LOADED_AS, *_NO_MATTER):
            yield f"model_init_kwargs[{key!r}]", f"there are {', '.join((*_LOADED_AS, *_NO_MATTER))}"


_LOADED_AS = ("dtype", "torch_dtype", "revision", "trust_remote_code")
_NO_MATTER = ("attn_implementation", "device_map", "low_cpu_mem_usage", "use_cache")


def _said(args: SharedConfig, chosen: Mapping[str, Any]) -> Iterator[str]:
    for name, value in chosen.items():
        rule = RULES.get(name, UNKNOWN)
        applies, why_not = _ONLY.get(name, (None, ""))
        if name == "do_eval" and args.eval_strategy != "no":
            continue  # transformers sets it by itself
        if name == "dataloader_pin_memory" and args.use_cpu:
            continue  # and this one
        if rule.verdict == "idle":
            yield f"{name} = {value!r} changes nothing here: {rule.words}"
        elif applies is not None and not applies(args):
            yield f"{name} = {value!r} changes nothing: {why_not}"
        elif name in (
            "warmup_ratio",
            "max_prompt_length",
            "evaluation_strategy",
            "no_cuda",
            "wandb_log_unique_prompts",
        ):
            yield f"{name} is no longer a setting of TRL's or transformers'; here it is {rule.words}"
    for key in as_dict(args.model_init_kwargs):
        if key in _NO_MATTER:
            yield f"model_init_kwargs[{key!r}] changes nothing here: attention, cache and device are the policy's own"


def _optimizer(args: SharedConfig, total: int) -> dict[str, Any]:
    warm = args.warmup_steps if args.warmup_ratio is None else args.warmup_ratio
    share = warm if warm < 1 else warm / total
    if share >= 1:
        raise RecipeError(f"warmup_steps = {warm} is not less than the {total} optimizer steps of the run")
    constant = args.lr_scheduler_type == "constant"  # transformers gives it no warm-up
    return {
        "optimizer.kind": "adamw_8bit" if args.optim in EIGHT_BITS else "adamw",
        "optimizer.lr": float(args.learning_rate),
        "optimizer.betas": [args.adam_beta1, args.adam_beta2],
        "optimizer.eps": args.adam_epsilon,
        "optimizer.weight_decay": float(args.weight_decay),
        "optimizer.max_grad_norm": float(args.max_grad_norm) if args.max_grad_norm else math.inf,
        "optimizer.schedule": SCHEDULES[args.lr_scheduler_type],
        "optimizer.warmup": 0.0 if constant else float(share),
    }


def _sampling(args: SharedConfig) -> dict[str, Any]:
    if args.max_completion_length is None:
        raise RecipeError("max_completion_length = None: a completion needs a longest length")
    settings: dict[str, Any] = {
        "max_new_tokens": args.max_completion_length,
        "temperature": float(args.temperature),
        "top_p": float(args.top_p),
        "top_k": args.top_k,
        "min_p": float(args.min_p or 0.0),
        "repetition_penalty": float(args.repetition_penalty),
    }
    for key, value in as_dict(args.generation_kwargs).items():
        listed = key in ("stop_strings", "eos_token_id") and not isinstance(value, list)
        settings |= {SAMPLED[key]: [value] if listed else value} if key in SAMPLED else {}
    return {f"sampling.{name}": value for name, value in settings.items()}


def _model(args: SharedConfig) -> dict[str, Any]:
    given = as_dict(args.model_init_kwargs)
    loaded_as = str(given.get("dtype", given.get("torch_dtype", "float32"))).removeprefix("torch.")
    dtype = "fp16" if args.fp16 else "bf16" if args.bf16 else DTYPES.get(loaded_as, "fp32")
    settings: dict[str, Any] = {
        "model.dtype": "auto" if dtype == "bf16" and args.bf16_was_left else dtype,
        "model.gradient_checkpointing": bool(args.activation_checkpointing),
        "model.trust_remote_code": bool(args.trust_remote_code or given.get("trust_remote_code")),
    }
    settings |= {"model.device": "cpu"} if args.use_cpu else {}
    settings |= {"model.revision": given["revision"]} if given.get("revision") else {}
    if variables := as_dict(args.chat_template_kwargs):
        settings["task.template_variables"] = variables
    if args.max_prompt_length is not None:
        settings |= {"task.max_prompt_tokens": args.max_prompt_length, "task.long_prompts": "truncate"}
    return settings


def _run(args: SharedConfig) -> dict[str, Any]:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", args.run_name or "run").lstrip("._-")[:90]
    folder = Path(args.output_dir or "trainer_output") / "runs"
    limit = args.save_total_limit
    return {
        "run.folder": str(folder),
        "run.name": name or "run",
        "evaluation.before": False,
        # What `checkpoint-N` goes on from is kept as long as `checkpoint-N` is; the run's own end is one more.
        "checkpoints.every": 0,
        "checkpoints.best": False,
        "checkpoints.keep": limit + 1 if limit else _ALL,
    }


def as_dict(value: object) -> dict[str, Any]:
    """Of a field that TRL takes as a dict, and from a command line as JSON."""
    return dict(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else {}
