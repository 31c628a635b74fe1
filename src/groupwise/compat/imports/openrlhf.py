"""OpenRLHF's flags, as they stand in a shell script: `--actor_learning_rate 5e-7 --n_samples_per_prompt 8`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from groupwise.compat.imports.report import Imported, Table, as_float, chosen, to

_CRITIC = "a group is its own baseline: there is no critic"
_ONE = "there is one process"
_VLLM = "the embedded engine samples, with the policy's own weights"

ESTIMATORS: Mapping[str, Mapping[str, Any]] = {
    "group_norm": {"algorithm.advantage": "group_normalized"},
    "dr_grpo": {"algorithm.advantage": "group_centred"},
    "rloo": {"algorithm.advantage": "leave_one_out"},
    "reinforce": {"algorithm.advantage": "reinforce_pp"},
    "reinforce_baseline": {"algorithm.advantage": "reinforce_pp_baseline"},
}

TABLE = Table(
    taken={
        "pretrain": to("model.id"),
        "prompt_data": to("task.path"),
        "prompt_split": to("task.train_split"),
        "eval_split": to("task.eval_split"),
        "max_samples": lambda value: {"task.limit": int(value)},
        "prompt_max_len": lambda value: {"task.max_prompt_tokens": int(value)},
        "generate_max_len": lambda value: {"sampling.max_new_tokens": int(value)},
        "temperature": as_float("sampling.temperature"),
        "top_p": as_float("sampling.top_p"),
        "n_samples_per_prompt": lambda value: {"train.group_size": int(value)},
        "rollout_batch_size": lambda value: {"train.prompts_per_step": int(value)},
        "max_epochs": lambda value: {"learner.passes": int(value)},
        "actor_learning_rate": as_float("optimizer.lr"),
        "lr_warmup_ratio": as_float("optimizer.warmup"),
        "l2": as_float("optimizer.weight_decay"),
        "max_norm": as_float("optimizer.max_grad_norm"),
        "lr_scheduler": chosen(
            "optimizer.schedule",
            {"linear": "linear", "constant": "constant", "cosine": "cosine", "constant_with_warmup": "constant"},
        ),
        "init_kl_coef": as_float("algorithm.beta"),
        "kl_estimator": chosen("algorithm.divergence", {"k1": "k1", "k2": "k2", "k3": "k3"}),
        "use_kl_loss": lambda value: {"algorithm.kl_in": "loss"},
        "advantage_estimator": lambda value: ESTIMATORS[value],
        "entropy_loss_coef": as_float("algorithm.entropy"),
        "gradient_checkpointing": lambda value: {"model.gradient_checkpointing": True},
        "bf16": lambda value: {"model.dtype": "bf16"},
        "lora_rank": lambda value: {"lora.r": int(value)} if int(value) else {},
        "lora_alpha": as_float("lora.alpha"),
        "lora_dropout": as_float("lora.dropout"),
        "seed": lambda value: {"seed": int(value)},
        "eval_steps": lambda value: {"evaluation.every": max(int(value), 0)},
        "wandb_run_name": to("run.name"),
        "use_wandb": lambda value: {"run.trackers": ["wandb"]},
        "use_tensorboard": lambda value: {"run.trackers": ["tensorboard"]},
    },
    idle={
        **dict.fromkeys(("zero_stage", "adam_offload", "actor_num_nodes", "actor_num_gpus_per_node"), _ONE),
        **dict.fromkeys(("ref_num_nodes", "ref_num_gpus_per_node", "colocate_all_models", "colocate_actor_ref"), _ONE),
        **dict.fromkeys(("vllm_num_engines", "vllm_tensor_parallel_size", "vllm_gpu_memory_utilization"), _VLLM),
        **dict.fromkeys(("vllm_enable_sleep", "vllm_sync_backend", "enable_prefix_caching", "enforce_eager"), _VLLM),
        **dict.fromkeys(("micro_train_batch_size", "micro_rollout_batch_size"), "learner.token_budget bounds memory"),
        **dict.fromkeys(("packing_samples", "flash_attn", "attn_implementation"), "nothing is padded in any case"),
        **dict.fromkeys(("deepspeed_enable_sleep", "ring_attn_size", "ring_head_stride", "local_rank"), _ONE),
        "apply_chat_template": "conversations, and texts where the tokenizer has a template, go through it",
        "normalize_reward": "advantages are compared within a group",
        "save_path": "the run folder keeps the model",
        "ckpt_path": "the run folder keeps what is kept",
    },
    lost={
        **dict.fromkeys(
            ("critic_pretrain", "critic_learning_rate", "critic_num_nodes", "critic_num_gpus_per_node"), _CRITIC
        ),
        **dict.fromkeys(("gamma", "lambd", "value_clip", "freezing_actor_steps"), _CRITIC),
        "reward_pretrain": "train in Python: groupwise.compat.trl with reward_funcs=the id",
        "remote_rm_url": 'write a reward function: [[rewards]] with function = "reward.py:judge"',
        "label_key": "rename the column: task.columns = {answer = ...}",
        "num_episodes": "set train.steps: episodes times prompts, divided by train.prompts_per_step",
        "save_steps": "see [checkpoints], where there are some",
    },
)


def flags_of(text: str) -> dict[str, Any]:
    """The flags of a command line or a shell script: `--name value`, `--name=value`, or `--name` alone: True."""
    flags: dict[str, Any] = {}
    name: str | None = None
    for word in shlex.split(text.replace("\\\n", " "), comments=True):
        if word.startswith("--"):
            name, sign, value = word[2:].partition("=")
            flags[name] = value if sign else True
            name = None if sign else name
        elif name is not None:
            known = flags[name]
            flags[name] = word if known is True else [*(known if isinstance(known, list) else [known]), word]
    return flags


def read_openrlhf(text: str, source: str) -> Imported:
    """The recipe of OpenRLHF's flags."""
    imported, given = Imported(source), flags_of(text)
    joined = _joined(given)
    TABLE.apply({name: value for name, value in given.items() if name not in joined}, imported)
    for name, settings in joined.items():
        imported.take(name, given[name], settings)
    own = {"algorithm.preset": "grpo", "algorithm.weights": "token_mean", "task.kind": "dataset"}
    imported.settings = {**own, **imported.settings}
    if "init_kl_coef" in given and "use_kl_loss" not in given and float(given["init_kl_coef"]):
        imported.settings["algorithm.kl_in"] = "reward"
    imported.leave_idle_divergence()
    return imported


def _joined(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings that mean something only together."""
    joined: dict[str, dict[str, Any]] = {}
    if "input_key" in given:
        key = str(given["input_key"])
        joined["input_key"] = {} if key == "prompt" else {"task.columns": {"prompt": key}}
    whole = int(given.get("rollout_batch_size", 0)) * int(given.get("n_samples_per_prompt", 1))
    if whole and "train_batch_size" in given:
        joined["train_batch_size"] = {"learner.updates_per_batch": max(whole // int(given["train_batch_size"]), 1)}
    if "eps_clip" in given:
        clip = float(given["eps_clip"])
        joined["eps_clip"] = {"algorithm.clip_low": clip, "algorithm.clip_high": clip}
    if isinstance(given.get("eps_clip_low_high"), list):
        low, high = map(float, given["eps_clip_low_high"])
        joined["eps_clip_low_high"] = {"algorithm.clip_low": low, "algorithm.clip_high": high}
    if "dual_clip" in given:
        dual = float(given["dual_clip"])
        joined["dual_clip"] = {"algorithm.surrogate": "dual_clip", "algorithm.settings.dual": dual}
    if isinstance(given.get("adam_betas"), list):
        joined["adam_betas"] = {"optimizer.betas": [float(beta) for beta in given["adam_betas"]]}
    return joined
