"""What becomes of every setting of a TRL configuration: nothing that a script sets is silently ignored.

    mapped    it is a setting of a recipe, or of the run, under another name
    idle      it changes no result here; a script that sets it is warned, and told why
    refused   it would change results and there is no such thing here; the message names what to use instead

What a field that has no row here means to a script is not known, so that it is refused where it is set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Verdict = Literal["mapped", "idle", "refused"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of one setting, in words for the person who set it.

    Example: `Rule("mapped", "optimizer.lr")`
    """

    verdict: Verdict
    words: str


UNKNOWN = Rule("refused", "it is not known here what it means. Leave it away, or report it")

_BATCH = "train.prompts_per_step, learner.passes, learner.updates_per_batch"
_ROWS = "rows are in memory before the first step, there is no data loader"
_ONE = "there is one process"
_EVALUATION = "evaluation is sampling and grading, which has no such thing"
_COMPILED = "the layers are fused already where that is proven equal"
_SHARDS = "leave it away: training on several GPUs is started by torchrun, not by a setting"
_HUB = "the upload to the hub"
_TRACKER = "what the tracker is told"
_VLLM = "nothing is sampled by vLLM here"
_ENGINE = "the embedded engine batches continuously by itself"

_MAPPED: Mapping[str, str] = {
    "output_dir": "run.folder, the folder `runs` in it; checkpoints and save_model go to it directly",
    "per_device_train_batch_size": _BATCH,
    "gradient_accumulation_steps": _BATCH,
    "generation_batch_size": _BATCH,
    "steps_per_generation": _BATCH,
    "num_iterations": "learner.passes (mu)",
    "num_train_epochs": "train.steps",
    "max_steps": "train.steps",
    "learning_rate": "optimizer.lr",
    "lr_scheduler_type": "optimizer.schedule",
    "warmup_steps": "optimizer.warmup",
    "warmup_ratio": "optimizer.warmup; its name today is warmup_steps, which takes a share below 1",
    "optim": "optimizer.kind",
    "weight_decay": "optimizer.weight_decay",
    "adam_beta1": "optimizer.betas",
    "adam_beta2": "optimizer.betas",
    "adam_epsilon": "optimizer.eps",
    "max_grad_norm": "optimizer.max_grad_norm",
    "bf16": "model.dtype, with fp32 master weights",
    "fp16": "model.dtype, with fp32 master weights and loss scaling",
    "activation_checkpointing": "model.gradient_checkpointing",
    "gradient_checkpointing": "model.gradient_checkpointing",
    "logging_strategy": "when log_history grows; metrics.jsonl has every step",
    "logging_steps": "when log_history grows; metrics.jsonl has every step",
    "logging_first_step": "when log_history grows",
    "disable_tqdm": "a progress bar or printed rows",
    "report_to": "transformers' own callbacks for these trackers",
    "run_name": "run.name",
    "project": _TRACKER,
    "trackio_space_id": _TRACKER,
    "trackio_bucket_id": _TRACKER,
    "trackio_static_space_id": _TRACKER,
    "eval_strategy": "when eval_dataset is sampled and graded",
    "evaluation_strategy": "when eval_dataset is sampled and graded; its name today is eval_strategy",
    "eval_steps": "when eval_dataset is sampled and graded",
    "eval_delay": "when eval_dataset is sampled and graded",
    "eval_on_start": "when eval_dataset is sampled and graded",
    "num_generations_eval": "completions for each row of eval_dataset",
    "save_strategy": "when a checkpoint is written",
    "save_steps": "when a checkpoint is written",
    "save_total_limit": "how many checkpoints are kept",
    "push_to_hub": _HUB,
    "hub_token": _HUB,
    "hub_private_repo": _HUB,
    "hub_model_id": _HUB,
    "hub_strategy": _HUB,
    "hub_revision": _HUB,
    "metric_for_best_model": "state.best_metric, which EarlyStoppingCallback watches",
    "load_best_model_at_end": "the weights of state.best_model_checkpoint, once training has ended",
    "greater_is_better": "state.best_metric, which EarlyStoppingCallback watches",
    "full_determinism": "transformers.enable_full_determinism",
    "seed": "seed",
    "use_cpu": "model.device",
    "no_cuda": "model.device; its name today is use_cpu",
    "remove_unused_columns": "reward functions are given no columns",
    "log_level": "the verbosity of transformers",
    "model_init_kwargs": "arguments of AutoModelForCausalLM.from_pretrained",
    "trust_remote_code": "model.trust_remote_code",
    "num_generations": "train.group_size (G)",
    "chat_template_kwargs": "task.template_variables",
    "max_completion_length": "sampling.max_new_tokens",
    "max_prompt_length": "task.max_prompt_tokens, longer prompts keep their end, as they did when TRL had it",
    "shuffle_dataset": 'problems.order = "data"',
    "temperature": "sampling.temperature",
    "top_p": "sampling.top_p",
    "top_k": "sampling.top_k",
    "min_p": "sampling.min_p",
    "repetition_penalty": "sampling.repetition_penalty",
    "generation_kwargs": "settings of sampling",
    "beta": "algorithm.beta",
    "epsilon": "algorithm.clip_low",
    "epsilon_high": "algorithm.clip_high",
    "delta": 'algorithm.surrogate = "two_sided"',
    "loss_type": "algorithm.weights and algorithm.surrogate",
    "importance_sampling_level": "algorithm.ratio",
    "scale_rewards": "algorithm.advantage",
    "multi_objective_aggregation": 'algorithm.advantage = "gdpo"',
    "sapo_temperature_neg": "algorithm.settings.tau_neg",
    "sapo_temperature_pos": "algorithm.settings.tau_pos",
    "vespo_k_pos": "algorithm.settings.k_lambda_pos",
    "vespo_lambda_pos": "algorithm.settings.k_lambda_pos",
    "vespo_k_neg": "algorithm.settings.k_lambda_neg",
    "vespo_lambda_neg": "algorithm.settings.k_lambda_neg",
    "reward_weights": "rewards.weight",
    "mask_truncated_completions": "algorithm.mask_truncated",
    "max_tool_calling_iterations": "turns.limit, one more: the last turn answers",
    "sync_ref_model": "reference.every",
    "ref_model_mixup_alpha": "reference.mix",
    "ref_model_sync_steps": "reference.every",
    "top_entropy_quantile": 'algorithm.filters = ["top_entropy"]',
    "entropy_coef": "algorithm.entropy",
    "use_adaptive_entropy": 'algorithm.entropy_control = "stepped"',
    "entropy_coef_min": "algorithm.settings.entropy_min",
    "entropy_coef_max": "algorithm.settings.entropy_max",
    "entropy_coef_delta": "algorithm.settings.entropy_step",
    "entropy_target": "algorithm.settings.entropy_target",
    "off_policy_mask_threshold": 'algorithm.filters = ["off_policy_mask"]',
    "use_bias_correction_kl": "algorithm.kl_ratio",
    "log_completions": "parquet files in output_dir/completions, and a table on the screen",
    "num_completions_to_print": "rows of that table",
    "log_unique_prompts": "one row of that table for each prompt",
    "wandb_log_unique_prompts": "log_unique_prompts, its name today",
}

_IDLE: Mapping[str, str] = {
    "average_tokens_across_devices": "every mean is over the whole update in any case",
    "bf16_full_eval": "evaluation computes as training does",
    "fp16_full_eval": "evaluation computes as training does",
    "activation_checkpointing_kwargs": "checkpointing is never reentrant",
    "gradient_checkpointing_kwargs": "checkpointing is never reentrant",
    "torch_compile": _COMPILED,
    "torch_compile_backend": _COMPILED,
    "torch_compile_mode": _COMPILED,
    "use_liger_kernel": f"deprecated in TRL; {_COMPILED}",
    "use_liger_loss": f"TRL has it no more; {_COMPILED}",
    "liger_kernel_config": f"deprecated in TRL; {_COMPILED}",
    "use_cache": "a cache has no place in a training pass; the engine has one of its own",
    "tf32": "set torch.set_float32_matmul_precision yourself, before training",
    "torch_empty_cache_steps": "learner.token_budget bounds memory",
    "log_on_each_node": _ONE,
    "log_level_replica": _ONE,
    "save_on_each_node": _ONE,
    "local_rank": _ONE,
    "ddp_find_unused_parameters": _ONE,
    "ddp_bucket_cap_mb": _ONE,
    "ddp_broadcast_buffers": _ONE,
    "ddp_static_graph": _ONE,
    "ddp_backend": _ONE,
    "ddp_timeout": _ONE,
    "ds3_gather_for_generation": _ONE,
    "logging_nan_inf_filter": "an update whose gradient is not finite is never made",
    "include_num_input_tokens_seen": "num_tokens is always counted",
    "per_device_eval_batch_size": "engine.max_rows completions are sampled at once, whatever they are for",
    "prediction_loss_only": _EVALUATION,
    "eval_do_concat_batches": _EVALUATION,
    "eval_use_gather_object": _EVALUATION,
    "eval_accumulation_steps": _EVALUATION,
    "include_for_metrics": _EVALUATION,
    "batch_eval_metrics": _EVALUATION,
    "hub_always_push": "an upload is waited for, so none is skipped",
    "dataloader_drop_last": _ROWS,
    "dataloader_num_workers": _ROWS,
    "dataloader_pin_memory": _ROWS,
    "dataloader_persistent_workers": _ROWS,
    "dataloader_prefetch_factor": _ROWS,
    "dataloader_multiprocessing_context": _ROWS,
    "dataloader_in_order": _ROWS,
    "label_names": "there are no labels",
    "length_column_name": "it belongs to grouping by length, which is not done",
    "group_by_length": "nothing is padded, so there is nothing to group",
    "do_train": "it is for scripts to read",
    "do_eval": "it is for scripts to read",
    "do_predict": "it is for scripts to read",
    "resume_from_checkpoint": "it is for scripts to read: call train(resume_from_checkpoint=...)",
    "disable_dropout": "dropout of the model is always silenced: sampler and learner are one function",
    "pad_to_multiple_of": "nothing is padded",
    "cache_implementation": "the engine has a cache of its own",
    "use_transformers_continuous_batching": _ENGINE,
    "transformers_continuous_batching_config": _ENGINE,
    "use_transformers_paged": f"deprecated in TRL; {_ENGINE}",
    "vllm_mode": _VLLM,
    "vllm_model_impl": _VLLM,
    "vllm_enable_sleep_mode": _VLLM,
    "vllm_structured_outputs_regex": _VLLM,
    "vllm_server_base_url": _VLLM,
    "vllm_server_host": _VLLM,
    "vllm_server_port": _VLLM,
    "vllm_server_timeout": _VLLM,
    "vllm_group_port": _VLLM,
    "vllm_gpu_memory_utilization": _VLLM,
    "vllm_max_model_length": _VLLM,
    "vllm_tensor_parallel_size": _VLLM,
    "vllm_importance_sampling_correction": f"{_VLLM}, and sampler and learner are one function",
    "vllm_importance_sampling_mode": _VLLM,
    "vllm_importance_sampling_clip_max": _VLLM,
    "vllm_importance_sampling_clip_min": _VLLM,
    "vllm_importance_sampling_cap": f"deprecated in TRL; {_VLLM}",
    "vllm_device": f"TRL has it no more; {_VLLM}",
    "vllm_dtype": f"TRL has it no more; {_VLLM}",
    "vllm_guided_decoding_regex": f"TRL has it no more; {_VLLM}",
    "log_multimodal": "prompts are texts",
    "overwrite_output_dir": "nothing is overwritten: a run whose name is taken gets a number",
    "save_safetensors": "weights are always safetensors",
    "logging_dir": "transformers has it no more: set TENSORBOARD_LOGGING_DIR",
}

_REFUSED: Mapping[str, str] = {
    "lr_scheduler_kwargs": "make the scheduler yourself: GRPOTrainer(optimizers=(optimizer, scheduler))",
    "optim_args": "make the optimizer yourself: GRPOTrainer(optimizers=(optimizer, None))",
    "optim_target_modules": "train adapters instead: peft_config=LoraConfig(...)",
    "label_smoothing_factor": "a policy gradient has no labels; against collapsing entropy there is entropy_coef",
    "neftune_noise_alpha": "noise would make sampler and learner differ. Leave it away",
    "auto_find_batch_size": "leave it away: memory is bounded by learner.token_budget, whatever the batch is",
    "save_only_model": "leave it away; save_model writes the model alone",
    "enable_jit_checkpoint": "leave it away: SIGTERM saves, and train(resume_from_checkpoint=True) goes on",
    "ignore_data_skip": "leave it away: a resumed run goes on with the problems that come next",
    "restore_callback_states_from_checkpoint": "let your callback read and write a file of its own",
    "data_seed": "leave it away: everything random follows from seed",
    "accelerator_config": _SHARDS,
    "parallelism_config": _SHARDS,
    "fsdp": _SHARDS,
    "fsdp_config": _SHARDS,
    "deepspeed": _SHARDS,
    "debug": "leave it away",
    "skip_memory_metrics": "leave it away: `memory` metrics are those of your own torch.cuda calls",
    "train_sampling_strategy": "shuffle_dataset=False keeps the order of the rows",
    "router_aux_loss_coef": "set it to 0: there is no auxiliary loss for routers",
    "cast_lm_head_to_fp32": "set bf16=False and fp16=False: the whole model then computes in fp32",
    "use_vllm": "leave it away: the embedded engine samples, with the policy's own weights",
    "log_completions_hub_repo": "leave it away: every rollout is in the run folder, as parquet files",
    "normalize_advantages": "use GRPOTrainer with scale_rewards='batch'",
    "reward_clip_range": "clip in the reward function",
}


def _table() -> dict[str, Rule]:
    rules = {name: Rule("mapped", words) for name, words in _MAPPED.items()}
    rules |= {name: Rule("idle", words) for name, words in _IDLE.items()}
    return rules | {name: Rule("refused", words) for name, words in _REFUSED.items()}


RULES: Mapping[str, Rule] = MappingProxyType(_table())
"""By the name of the field."""
