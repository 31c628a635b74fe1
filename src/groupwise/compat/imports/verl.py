"""verl's yaml (`ppo_trainer.yaml` and what overrides it), dotted names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groupwise.compat.imports.report import Imported, Table, as_float, chosen, flattened, to

_ACTOR = "actor_rollout_ref.actor"
_ROLLOUT = "actor_rollout_ref.rollout"
_CRITIC = "a group is its own baseline: there is no critic"

ADVANTAGES = {
    "grpo": "group_normalized",
    "rloo": "leave_one_out",
    "reinforce_plus_plus": "reinforce_pp",
    "reinforce_plus_plus_baseline": "reinforce_pp_baseline",
    "opo": "optimal_baseline",
    "gpg": "gpg",
    "gdpo": "gdpo",
}
WEIGHTS = {
    "token-mean": "token_mean",
    "seq-mean-token-sum": "sequence_sum",
    "seq-mean-token-mean": "sequence_mean",
    "seq-mean-token-sum-norm": "fixed_length",
}
DIVERGENCES = {"kl": "k1", "k1": "k1", "mse": "k2", "k2": "k2", "low_var_kl": "k3", "k3": "k3"}
SURROGATES: Mapping[str, Mapping[str, Any]] = {
    "vanilla": {"algorithm.surrogate": "dual_clip"},
    "gspo": {"algorithm.surrogate": "clipped_ratio", "algorithm.ratio": "sequence_token"},
    "sapo": {"algorithm.surrogate": "sapo"},
    "gpg": {"algorithm.surrogate": "reinforce"},
    "clip_cov": {"algorithm.surrogate": "clip_cov"},
    "kl_cov": {"algorithm.surrogate": "kl_cov"},
    "geo_mean": {"algorithm.surrogate": "gmpo"},
    "cispo": {"algorithm.surrogate": "cispo_clip"},
    "dppo_tv": {"algorithm.surrogate": "dppo_tv"},
    "dppo_kl": {"algorithm.surrogate": "dppo_kl"},
}

TABLE = Table(
    taken={
        "data.train_batch_size": to("train.prompts_per_step"),
        "data.max_prompt_length": to("task.max_prompt_tokens"),
        "data.max_response_length": to("sampling.max_new_tokens"),
        "data.truncation": chosen("task.long_prompts", {"left": "truncate", "error": "error"}),
        "data.shuffle": lambda value: {"problems.order": "epochs" if value else "data"},
        "data.seed": lambda value: {} if value is None else {"seed": value},
        "actor_rollout_ref.model.path": to("model.id"),
        "actor_rollout_ref.model.lora_rank": lambda value: {"lora.r": value} if value else {},
        "actor_rollout_ref.model.trust_remote_code": to("model.trust_remote_code"),
        "actor_rollout_ref.model.enable_gradient_checkpointing": to("model.gradient_checkpointing"),
        f"{_ACTOR}.optim.lr": as_float("optimizer.lr"),
        f"{_ACTOR}.optim.weight_decay": as_float("optimizer.weight_decay"),
        f"{_ACTOR}.optim.lr_warmup_steps_ratio": as_float("optimizer.warmup"),
        f"{_ACTOR}.optim.warmup_style": chosen("optimizer.schedule", {"constant": "constant", "cosine": "cosine"}),
        f"{_ACTOR}.optim.lr_scheduler_type": chosen("optimizer.schedule", {"constant": "constant", "cosine": "cosine"}),
        f"{_ACTOR}.grad_clip": as_float("optimizer.max_grad_norm"),
        f"{_ACTOR}.ppo_epochs": to("learner.passes"),
        f"{_ACTOR}.loss_agg_mode": chosen("algorithm.weights", WEIGHTS),
        f"{_ACTOR}.entropy_coeff": as_float("algorithm.entropy"),
        f"{_ACTOR}.kl_loss_type": chosen("algorithm.divergence", DIVERGENCES),
        f"{_ACTOR}.policy_loss.loss_mode": lambda value: SURROGATES[value],
        f"{_ROLLOUT}.n": to("train.group_size"),
        f"{_ROLLOUT}.temperature": as_float("sampling.temperature"),
        f"{_ROLLOUT}.top_p": as_float("sampling.top_p"),
        f"{_ROLLOUT}.top_k": lambda value: {"sampling.top_k": max(int(value), 0)},
        "algorithm.adv_estimator": chosen("algorithm.advantage", ADVANTAGES),
        "trainer.total_training_steps": lambda value: {} if value is None else {"train.steps": value},
        "trainer.test_freq": lambda value: {"evaluation.every": max(int(value), 0)},
        "trainer.val_before_train": to("evaluation.before"),
        "trainer.experiment_name": to("run.name"),
        "trainer.default_local_dir": to("run.folder"),
    },
    idle={
        f"{_ACTOR}.ppo_micro_batch_size": "learner.token_budget bounds memory, and no gradient depends on it",
        f"{_ACTOR}.ppo_micro_batch_size_per_gpu": "learner.token_budget bounds memory, and no gradient depends on it",
        f"{_ACTOR}.use_dynamic_bsz": "micro-batches are by tokens in any case",
        f"{_ACTOR}.ppo_max_token_len_per_gpu": "learner.token_budget bounds memory",
        f"{_ACTOR}.fsdp_config": "there is one process",
        f"{_ACTOR}.strategy": "there is one process",
        f"{_ACTOR}.shuffle": "groups are drawn in a new order each epoch",
        f"{_ACTOR}.checkpoint": "the run folder has what is kept",
        "actor_rollout_ref.ref": "the reference computes as the policy does",
        "actor_rollout_ref.hybrid_engine": "the embedded engine samples with the policy's own weights",
        "actor_rollout_ref.model.use_remove_padding": "nothing is padded",
        _ROLLOUT: "the embedded engine has no such setting",
        "trainer.logger": "metrics are in the run folder; run.trackers adds tensorboard, wandb or trackio",
        "trainer.project_name": "runs have names",
        "trainer.nnodes": "there is one process",
        "trainer.n_gpus_per_node": "there is one process",
        "trainer.resume_mode": "a run is resumed on the command line",
        "data.filter_overlong_prompts": "prompts that are too long are dropped, unless task.long_prompts says so",
        "data.return_raw_chat": "prompts are kept as they are",
        "ray_kwargs": "there is one process",
    },
    lost={
        "critic": _CRITIC,
        "algorithm.gamma": f"rewards are for whole completions; {_CRITIC}",
        "algorithm.lam": f"rewards are for whole completions; {_CRITIC}",
        "reward_model": "name reward functions in [[rewards]]",
        "custom_reward_function": "a reward function gets the whole batch here: judge(completions, **columns)",
        "data.val_files": "set task.eval_split, or task.hold_out",
        "trainer.save_freq": "see [checkpoints], where there are some",
    },
)


def read_verl(tree: Mapping[str, Any], source: str) -> Imported:
    """The recipe of a yaml of verl's, with what follows from several of its settings."""
    imported, given = Imported(source), flattened(tree)
    joined = _joined(given)
    TABLE.apply({name: value for name, value in given.items() if name not in joined}, imported)
    imported.settings = {"algorithm.preset": "grpo", "task.kind": "dataset", **imported.settings}
    for name, settings in joined.items():
        imported.take(name, given[name], settings)
    imported.leave_idle_divergence()
    return imported


def _joined(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings that mean something only together."""
    joined: dict[str, dict[str, Any]] = {}
    files = given.get("data.train_files")
    if files is not None:
        joined["data.train_files"] = {"task.path": files if isinstance(files, str) else str(files[0])}
    key = given.get("data.prompt_key")
    if key is not None:
        joined["data.prompt_key"] = {} if key == "prompt" else {"task.columns": {"prompt": key}}
    mini, whole = given.get(f"{_ACTOR}.ppo_mini_batch_size"), given.get("data.train_batch_size")
    if mini and whole:
        joined[f"{_ACTOR}.ppo_mini_batch_size"] = {"learner.updates_per_batch": max(int(whole) // int(mini), 1)}
    joined |= _clips(given) | _kl(given)
    if "algorithm.norm_adv_by_std_in_grpo" in given:
        plain = given.get("algorithm.adv_estimator", "grpo") == "grpo"
        centred = plain and not given["algorithm.norm_adv_by_std_in_grpo"]
        joined["algorithm.norm_adv_by_std_in_grpo"] = {"algorithm.advantage": "group_centred"} if centred else {}
    if given.get("actor_rollout_ref.model.lora_rank"):
        for theirs, ours in (("lora_alpha", "lora.alpha"), ("target_modules", "lora.targets")):
            if (name := f"actor_rollout_ref.model.{theirs}") in given:
                joined[name] = {ours: given[name]}
    if "trainer.total_epochs" in given and not given.get("trainer.total_training_steps"):
        joined["trainer.total_epochs"] = {}
    return joined


def _clips(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`clip_ratio` holds for both sides, where they have no value of their own."""
    both = given.get(f"{_ACTOR}.clip_ratio", 0.2)
    low = given.get(f"{_ACTOR}.clip_ratio_low", both)
    high = given.get(f"{_ACTOR}.clip_ratio_high", both)
    settings = {
        "clip_ratio": {"algorithm.clip_low": float(low), "algorithm.clip_high": float(high)},
        "clip_ratio_low": {"algorithm.clip_low": float(low)},
        "clip_ratio_high": {"algorithm.clip_high": float(high)},
        "clip_ratio_c": {"algorithm.settings.dual": float(given.get(f"{_ACTOR}.clip_ratio_c", 3.0))},
    }
    return {f"{_ACTOR}.{name}": value for name, value in settings.items() if f"{_ACTOR}.{name}" in given}


def _kl(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    joined: dict[str, dict[str, Any]] = {}
    if f"{_ACTOR}.use_kl_loss" in given:
        used = bool(given[f"{_ACTOR}.use_kl_loss"])
        beta = float(given.get(f"{_ACTOR}.kl_loss_coef", 0.001)) if used else 0.0
        joined[f"{_ACTOR}.use_kl_loss"] = {"algorithm.beta": beta}
        if f"{_ACTOR}.kl_loss_coef" in given:
            joined[f"{_ACTOR}.kl_loss_coef"] = {"algorithm.beta": beta}
    if given.get("algorithm.use_kl_in_reward"):
        beta = float(given.get("algorithm.kl_ctrl.kl_coef", 0.001))
        joined["algorithm.use_kl_in_reward"] = {"algorithm.kl_in": "reward", "algorithm.beta": beta}
        if "algorithm.kl_penalty" in given:
            joined["algorithm.kl_penalty"] = {"algorithm.divergence": DIVERGENCES[given["algorithm.kl_penalty"]]}
    return joined
