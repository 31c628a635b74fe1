"""Every field of TRL's configurations is there with TRL's default, and none is silently ignored."""

import dataclasses
import inspect
import re
import warnings
from dataclasses import replace

import pytest

from groupwise.compat.config import GRPOConfig, RLOOConfig
from groupwise.compat.metrics import ABSENT, UPDATED, group_metrics
from groupwise.compat.rules import RULES
from groupwise.compat.setup import MORE, REFUSED
from groupwise.compat.trainer import GRPOTrainer
from groupwise.compat.translate import translate
from groupwise.errors import RecipeError
from groupwise.types import Completion, Group, Problem, Rollout

PROBLEMS = 64

OTHER = {
    # Where the kind of a default does not tell another value that makes sense.
    "lr_scheduler_type": "cosine",
    "lr_scheduler_kwargs": {"num_cycles": 2},
    "optim": "adamw_8bit",
    "optim_args": "a=1",
    "optim_target_modules": ["q_proj"],
    "bf16": True,
    "activation_checkpointing": False,
    "activation_checkpointing_kwargs": {"use_reentrant": True},
    "gradient_checkpointing_kwargs": {"use_reentrant": True},
    "torch_compile_backend": "eager",
    "torch_compile_mode": "max-autotune",
    "liger_kernel_config": {"rope": True},
    "neftune_noise_alpha": 5.0,
    "torch_empty_cache_steps": 4,
    "logging_strategy": "epoch",
    "include_num_input_tokens_seen": "all",
    "log_level": "error",
    "log_level_replica": "error",
    "disable_tqdm": True,
    "report_to": "tensorboard",
    "run_name": "mine",
    "project": "mine",
    "eval_strategy": "epoch",
    "eval_accumulation_steps": 2,
    "include_for_metrics": ["inputs"],
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "hub_strategy": "end",
    "hub_private_repo": True,
    "greater_is_better": True,
    "accelerator_config": {"split_batches": True},
    "dataloader_num_workers": 2,
    "dataloader_prefetch_factor": 2,
    "label_names": ["labels"],
    "train_sampling_strategy": "group_by_length",
    "ddp_find_unused_parameters": True,
    "ddp_bucket_cap_mb": 25,
    "ddp_broadcast_buffers": True,
    "ddp_static_graph": True,
    "ddp_backend": "gloo",
    "fsdp": "full_shard",
    "fsdp_config": {"min_num_params": 1},
    "deepspeed": {"zero_optimization": {"stage": 2}},
    "debug": "underflow_overflow",
    "parallelism_config": None,
    "model_init_kwargs": {"revision": "abc"},
    "trust_remote_code": True,
    "router_aux_loss_coef": 0.1,
    "num_generations": 4,
    "num_generations_eval": 4,
    "pad_to_multiple_of": 8,
    "generation_batch_size": 16,
    "steps_per_generation": 2,
    "min_p": 0.1,
    "generation_kwargs": {"stop_strings": ["###"]},
    "chat_template_kwargs": {"enable_thinking": False},
    "cache_implementation": "static",
    "vllm_mode": "server",
    "vllm_model_impl": "transformers",
    "vllm_max_model_length": 512,
    "beta": 0.04,
    "delta": 4.0,
    "epsilon_high": 0.28,
    "reward_weights": [1.0, 2.0],
    "multi_objective_aggregation": "normalize_then_sum",
    "importance_sampling_level": "sequence",
    "scale_rewards": "batch",
    "loss_type": "grpo",
    "top_entropy_quantile": 0.2,
    "max_tool_calling_iterations": 3,
    "vllm_importance_sampling_mode": "token_truncate",
    "vllm_importance_sampling_clip_max": 2.0,
    "vllm_importance_sampling_clip_min": 0.5,
    "vllm_importance_sampling_cap": 2.0,
    "off_policy_mask_threshold": 0.5,
    "num_completions_to_print": 3,
    "reward_clip_range": (-1.0, 1.0),
    "evaluation_strategy": "epoch",
    "warmup_ratio": 0.1,
    "max_prompt_length": 256,
    "no_cuda": True,
    "num_iterations": 2,
    "resume_from_checkpoint": "x",
    "transformers_continuous_batching_config": {"max_memory_percent": 0.4},
    "top_p": 0.9,
    "logging_steps": 5,
    "save_steps": 5,
    "per_device_train_batch_size": 16,
    "max_steps": 7,
    "eval_steps": 7,
    "vespo_k_pos": 2.5,
}
EVALUATED = {"eval_strategy": "epoch", "save_strategy": "epoch"}
BESIDE = {
    "load_best_model_at_end": {**EVALUATED, "metric_for_best_model": "reward"},
    # What else has to be said for a value to be allowed at all.
    "trust_remote_code": {"model_init_kwargs": {"revision": "abc"}},
    "eval_delay": {"eval_strategy": "epoch"},
    "eval_steps": {"eval_strategy": "steps"},
    "ref_model_mixup_alpha": {"sync_ref_model": True, "beta": 0.1},
    "ref_model_sync_steps": {"sync_ref_model": True, "beta": 0.1},
    "sync_ref_model": {"beta": 0.1},
    "use_bias_correction_kl": {"beta": 0.1},
    "log_completions_hub_repo": {"log_completions": True},
    "steps_per_generation": {"per_device_train_batch_size": 16},
    "num_completions_to_print": {"log_completions": True},
    "log_unique_prompts": {"log_completions": True},
    **{f"sapo_temperature_{sign}": {"loss_type": "sapo"} for sign in ("pos", "neg")},
    **{f"vespo_{what}": {"loss_type": "vespo"} for what in ("k_pos", "k_neg", "lambda_pos", "lambda_neg")},
    **{f"entropy_coef_{what}": {"use_adaptive_entropy": True} for what in ("min", "max", "delta")},
    "entropy_target": {"use_adaptive_entropy": True},
}
NOT_TRIED = {
    "parallelism_config": "an object of accelerate's that needs several processes",
    "tf32": "transformers refuses it where there is no such GPU",
    "ddp_backend": "transformers asks for a process group at once",
    "deepspeed": "transformers asks for the package at once",
}
OLD = {
    # Fields that TRL and transformers have no more: what they become is said in any case.
    *("evaluation_strategy", "warmup_ratio", "max_prompt_length", "no_cuda", "wandb_log_unique_prompts"),
}
OF_THE_TRAINER = {
    # Read by the trainer itself and not by the recipe: what each of them does is in test_trl_trainer.
    *("logging_strategy", "logging_steps", "logging_first_step", "log_level", "disable_tqdm", "report_to", "project"),
    *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
    *("eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "num_generations_eval"),
    *("save_strategy", "save_steps", "save_total_limit", "metric_for_best_model", "greater_is_better"),
    "load_best_model_at_end",
    *("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_revision"),
    *("remove_unused_columns", "reward_weights", "full_determinism", "max_tool_calling_iterations"),
    *("log_completions", "num_completions_to_print", "log_unique_prompts"),
    *("evaluation_strategy", "wandb_log_unique_prompts"),
}


def trl(name):
    import trl

    return getattr(trl, name)


@pytest.mark.parametrize("ours", [GRPOConfig, RLOOConfig])
def test_every_field_of_trl_is_there_with_its_default(ours):
    theirs = trl(ours.__name__)
    mine = {field.name: field for field in dataclasses.fields(ours)}
    for field in dataclasses.fields(theirs):
        assert field.name in mine, f"{ours.__name__} has no {field.name}"
        assert mine[field.name].default == field.default, field.name
        assert mine[field.name].default_factory == field.default_factory or field.name == "include_for_metrics"
    assert len(mine) > 160


@pytest.mark.parametrize("name", ["GRPOTrainer", "RLOOTrainer"])
def test_every_argument_of_trls_trainers_is_taken_or_refused_by_name(name):
    theirs = inspect.signature(trl(name).__init__).parameters
    ours = inspect.signature(GRPOTrainer.__init__).parameters
    for argument, parameter in theirs.items():
        known = ours[argument].default if argument in ours else MORE[argument]
        assert argument == "self" or known == parameter.default or parameter.default is parameter.empty, argument
    assert set(REFUSED) <= set(MORE)


def test_every_metric_of_trls_is_logged_or_said_to_be_absent():
    source = inspect.getsource(inspect.getmodule(trl("GRPOTrainer")))
    named = set(re.findall(r'_metrics\[(?:mode|"train")\]\[f?"([^"]+)"\]', source))
    assert len(named) >= 30
    own = {"policy_loss", "num_tokens", "clip_ratio/region_mean", *UPDATED.values()}
    rollout = Rollout(Completion((1, 2), (0.0, 0.0), "stop", "x"), {"{reward_func_name}": 1.0}, 1.0)
    called = ({"role": "tool", "content": "4"}, {"role": "tool", "content": "error: no"})
    talked = replace(rollout, completion=replace(rollout.completion, messages=called))
    sampled = group_metrics([Group(Problem("p", "x"), (1,), (rollout, talked))])
    assert named - own - set(sampled) == set(ABSENT)
    assert (sampled["tools/call_frequency"], sampled["tools/failure_frequency"]) == (1.0, 0.5)


def other(field):
    """A value that is not the default."""
    if field.name in OTHER:
        return OTHER[field.name]
    if isinstance(field.default, bool):
        return not field.default
    if isinstance(field.default, int | float):
        return field.default + 1
    return "something"


def cases():
    for kind in (GRPOConfig, RLOOConfig):
        for field in dataclasses.fields(kind):
            if field.name not in NOT_TRIED and (
                kind is GRPOConfig or field.name not in GRPOConfig.__dataclass_fields__
            ):
                yield pytest.param(kind, field, id=f"{kind.__name__}.{field.name}")


@pytest.mark.parametrize(("kind", "field"), list(cases()))
def test_no_setting_is_silently_ignored(kind, field):
    """With another value than its default a field changes the recipe, is refused by name, or is warned about."""
    beside = BESIDE.get(field.name, {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        usual = translate(kind(**beside), PROBLEMS)
        try:
            changed = translate(kind(**{field.name: other(field), **beside}), PROBLEMS)
        except RecipeError as error:
            assert field.name in str(error)
            assert RULES[field.name].verdict == "refused"
            return
        except ValueError as error:  # what TRL and transformers refuse themselves
            assert field.name in str(error) or f"--{field.name}" in str(error), error
            return
    rule = RULES[field.name]
    assert rule.verdict != "refused"
    told = [sentence for sentence in changed.said if sentence.startswith(field.name)]
    if rule.verdict == "idle" or field.name in OLD:
        assert told
    if rule.verdict == "idle":
        assert dict(changed.settings) == dict(usual.settings)
    elif field.name not in OF_THE_TRAINER:
        assert dict(changed.settings) != dict(usual.settings), f"{field.name} is said to be mapped, and changes nothing"


def test_every_rule_is_about_a_field():
    known = {field.name for kind in (GRPOConfig, RLOOConfig) for field in dataclasses.fields(kind)}
    assert set(RULES) <= known
    assert known - set(RULES) == set()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sapo_temperature_pos": 2.0}, 'loss_type is not "sapo"'),
        ({"vespo_k_neg": 2.0}, 'loss_type is not "vespo"'),
        ({"epsilon": 0.1, "loss_type": "sapo"}, "clip nothing"),
        ({"delta": 2.0, "loss_type": "cispo"}, "no clipped ratio"),
        ({"entropy_target": 0.5}, "use_adaptive_entropy is not set"),
        ({"ref_model_sync_steps": 3}, "sync_ref_model is not set"),
        ({"use_bias_correction_kl": False}, "beta is 0"),
        ({"num_completions_to_print": 3}, "log_completions is not set"),
        ({"eval_delay": 3}, "eval_strategy is not set"),
    ],
)
def test_what_means_something_only_beside_another_setting_is_said(settings, told):
    said = translate(GRPOConfig(**settings), PROBLEMS).said
    name = next(iter(settings))
    assert any(sentence.startswith(name) and told in sentence for sentence in said)


def test_settings_that_trl_has_no_more_are_taken_and_said():
    args = GRPOConfig(max_prompt_length=96, warmup_ratio=0.25, vllm_device="cuda:1", max_steps=8)
    translated = translate(args, PROBLEMS)
    assert translated.settings["task.max_prompt_tokens"] == 96
    assert translated.settings["task.long_prompts"] == "truncate"
    assert translated.settings["optimizer.warmup"] == 0.25
    assert {sentence.split()[0] for sentence in translated.said} == {"max_prompt_length", "warmup_ratio", "vllm_device"}


def test_all_that_is_refused_is_said_together():
    args = GRPOConfig(use_vllm=True, deepspeed=None, neftune_noise_alpha=5.0, generation_kwargs={"num_beams": 2})
    with pytest.raises(RecipeError) as error:
        translate(args, PROBLEMS)
    for name in ("use_vllm", "neftune_noise_alpha", "generation_kwargs['num_beams']"):
        assert name in str(error.value)


OBJECTIVES = {
    "default": ({}, {"weights": "token_mean", "surrogate": "clipped_ratio", "advantage": "group_normalized"}),
    "grpo": ({"loss_type": "grpo"}, {"weights": "sequence_mean"}),
    "dr_grpo": (
        {"loss_type": "dr_grpo", "scale_rewards": False},
        {"weights": "fixed_length", "advantage": "group_centred"},
    ),
    "gspo": (
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
        {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4},
    ),
    "two sided": ({"delta": 1.5}, {"surrogate": "two_sided", "settings.delta": 1.5}),
    "cispo": (
        {"loss_type": "cispo", "epsilon_high": 5.0},
        {"surrogate": "cispo_cap", "settings.cap": 5.0, "weights": "token_mean"},
    ),
    "sapo": ({"loss_type": "sapo"}, {"surrogate": "sapo", "settings.tau_neg": 1.05, "weights": "sequence_mean"}),
    "vespo": (
        {"loss_type": "vespo"},
        {"surrogate": "vespo", "settings.k_lambda_pos": [2.0, 3.0], "settings.k_lambda_neg": [3.0, 2.0]},
    ),
    "batch": ({"scale_rewards": "batch"}, {"advantage": "batch_normalized"}),
    "gdpo": ({"multi_objective_aggregation": "normalize_then_sum"}, {"advantage": "gdpo"}),
    "high entropy": ({"top_entropy_quantile": 0.2}, {"filters": ["top_entropy"], "settings.top_share": 0.2}),
    "off policy": (
        {"off_policy_mask_threshold": 0.5},
        {"filters": ["off_policy_mask"], "settings.off_policy_limit": 0.5},
    ),
    "KL": ({"beta": 0.04}, {"beta": 0.04, "kl_ratio": True}),
    "biased KL": ({"beta": 0.04, "use_bias_correction_kl": False}, {"beta": 0.04, "kl_ratio": False}),
    "entropy": ({"entropy_coef": 0.01}, {"entropy": 0.01}),
    "adaptive": (
        {"entropy_coef": 0.01, "use_adaptive_entropy": True},
        {"entropy_control": "stepped", "settings.entropy_step": 0.005},
    ),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_of_trl_is_one_of_ours(name):
    """The entries are those that test_trl_parity holds against TRL's code; here, that they are chosen and fit."""
    from groupwise.config import load_recipe
    from groupwise.learner.algorithm import Algorithm
    from groupwise.training.given import _with_settings

    theirs, ours = OBJECTIVES[name]
    settings = dict(translate(GRPOConfig(max_completion_length=64, **theirs), PROBLEMS).settings)
    for key, value in ours.items():
        assert settings[f"algorithm.{key}"] == value
    tree = _with_settings({"model": {"id": "m"}, "task": {"kind": "gsm8k"}}, settings)
    recipe = load_recipe(tree).recipe
    Algorithm.of(recipe.algorithm, recipe.sampling.max_new_tokens)


def test_rloo():
    from groupwise.config import load_recipe
    from groupwise.training.given import _with_settings

    settings = dict(translate(RLOOConfig(), PROBLEMS).settings)
    assert settings["train.group_size"] == 2
    recipe = load_recipe(_with_settings({"model": {"id": "m"}, "task": {"kind": "gsm8k"}}, settings)).recipe
    assert (recipe.algorithm.advantage, recipe.algorithm.ratio) == ("leave_one_out", "product")
    assert (recipe.algorithm.kl_in, recipe.algorithm.divergence, recipe.algorithm.beta) == ("reward", "k1", 0.05)
