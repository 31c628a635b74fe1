"""`GRPOConfig` and `RLOOConfig`: TRL 1.16.0's settings under TRL's names and with TRL's defaults.

    training_args = GRPOConfig(output_dir="GRPO", learning_rate=2e-5, num_generations=4, max_completion_length=96)

They hold what a script says, nothing more: what becomes of each setting is in `rules` and `translate`. Names that TRL
or transformers had once and that scripts still use are fields, too; `None` means that the script does not use them.
"""

from __future__ import annotations

import difflib
import warnings
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

from transformers import TrainingArguments
from transformers.training_args import OptimizerNames


@dataclass
class SharedConfig(TrainingArguments):
    """What GRPO and RLOO have in common, in the order of TRL's documentation."""

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [
        *TrainingArguments._VALID_DICT_FIELDS,
        "model_init_kwargs",
        "generation_kwargs",
        "chat_template_kwargs",
        "transformers_continuous_batching_config",
    ]

    learning_rate: float = 1e-6
    logging_steps: float = 10
    gradient_checkpointing: bool | None = True
    bf16: Any = None
    lr_scheduler_kwargs: dict[str, Any] | str | None = None

    model_init_kwargs: dict[str, Any] | str | None = None
    trust_remote_code: bool = False
    router_aux_loss_coef: float | None = None
    disable_dropout: bool = False

    remove_unused_columns: Any = False
    num_generations: int | None = 8
    num_generations_eval: int | None = None
    max_completion_length: int | None = 512
    ds3_gather_for_generation: bool = True
    shuffle_dataset: bool | None = True
    pad_to_multiple_of: int | str | None = "auto"

    generation_batch_size: int | None = None
    steps_per_generation: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float | None = None
    generation_kwargs: dict[str, Any] | str | None = None
    chat_template_kwargs: dict[str, Any] | str | None = None
    repetition_penalty: float = 1.0
    cache_implementation: str | None = None

    use_vllm: bool = False
    vllm_mode: str = "colocate"
    vllm_model_impl: str = "vllm"
    vllm_enable_sleep_mode: bool = False
    vllm_structured_outputs_regex: str | None = None
    vllm_server_base_url: str | None = None
    vllm_server_host: str = "0.0.0.0"
    vllm_server_port: int = 8000
    vllm_server_timeout: float = 240.0
    vllm_group_port: int = 51216
    vllm_gpu_memory_utilization: float = 0.3
    vllm_max_model_length: int | None = None
    vllm_tensor_parallel_size: int = 1

    beta: float = 0.0
    num_iterations: int = 1
    epsilon: float = 0.2
    epsilon_high: float | None = None
    reward_weights: list[float] | None = None
    mask_truncated_completions: bool = False
    sync_ref_model: bool = False
    ref_model_mixup_alpha: float = 0.6
    ref_model_sync_steps: int = 512

    log_completions: bool = False
    log_multimodal: bool = True
    num_completions_to_print: int | None = None
    log_unique_prompts: bool = False

    use_transformers_continuous_batching: bool = False
    transformers_continuous_batching_config: dict[str, Any] | str | None = None
    use_transformers_paged: bool = False

    # What earlier releases had.
    max_prompt_length: int | None = None
    warmup_ratio: float | None = None
    evaluation_strategy: str | None = None
    no_cuda: bool | None = None
    wandb_log_unique_prompts: bool | None = None
    use_liger_loss: bool | None = None
    vllm_device: str | None = None
    vllm_dtype: str | None = None
    vllm_guided_decoding_regex: str | None = None
    overwrite_output_dir: bool | None = None
    save_safetensors: bool | None = None
    logging_dir: str | None = None
    group_by_length: bool | None = None

    def __new__(cls, *_: Any, **given: Any) -> Self:
        """A name that is no field is a TypeError that knows better than Python's own."""
        known = [field.name for field in fields(cls) if field.init]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f": did you mean {near[0]!r}?" if near else ". The fields are those of TRL 1.16.0"
                raise TypeError(f"{cls.__name__} has no field {name!r}{hint}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """What a script may have left to the class is filled in, as TRL fills it in."""
        self.bf16_was_left = self.bf16 is None
        self.bf16 = not self.fp16 if self.bf16 is None else self.bf16
        half = {name: vars(self)[name] for name in ("bf16", "fp16", "bf16_full_eval", "fp16_full_eval")}
        self.eval_strategy = self.evaluation_strategy or self.eval_strategy
        self.use_cpu = self.use_cpu or bool(self.no_cuda)
        self._spell_optimizer()
        vars(self).update(dict.fromkeys(half, False))  # what this machine computes in is asked when a model is loaded
        with warnings.catch_warnings():  # about gradient_checkpointing, which every TRL configuration sets
            warnings.filterwarnings("ignore", message="`gradient_checkpointing", category=FutureWarning)
            super().__post_init__()
        vars(self).update(half)

    def _spell_optimizer(self) -> None:
        """Well-known scripts write `adamW_8bit`, which names an optimizer only in small letters."""
        names = {name.value.lower(): name.value for name in OptimizerNames}
        asked: Any = self.optim
        if asked not in names.values() and str(asked).lower() in names:
            self.optim = names[str(asked).lower()]
            warnings.warn(f"optim={asked!r} is taken for {self.optim!r}", stacklevel=4)


@dataclass
class GRPOConfig(SharedConfig):
    """The settings of `GRPOTrainer`."""

    cast_lm_head_to_fp32: bool = False
    delta: float | None = None
    sapo_temperature_neg: float = 1.05
    sapo_temperature_pos: float = 1.0
    vespo_k_pos: float = 2.0
    vespo_lambda_pos: float = 3.0
    vespo_k_neg: float = 3.0
    vespo_lambda_neg: float = 2.0
    importance_sampling_level: str = "token"
    multi_objective_aggregation: str = "sum_then_normalize"
    scale_rewards: Any = "group"
    loss_type: str = "dapo"
    top_entropy_quantile: float = 1.0
    entropy_coef: float = 0.0
    use_adaptive_entropy: bool = False
    entropy_coef_min: float = 0.0
    entropy_coef_max: float = 1.0
    entropy_coef_delta: float = 0.005
    entropy_target: float = 0.2
    max_tool_calling_iterations: int | None = None
    vllm_importance_sampling_correction: bool = True
    vllm_importance_sampling_mode: str = "sequence_mask"
    vllm_importance_sampling_clip_max: float | None = 3.0
    vllm_importance_sampling_clip_min: float | None = None
    vllm_importance_sampling_cap: float | None = None
    off_policy_mask_threshold: float | None = None
    use_bias_correction_kl: bool = True
    log_completions_hub_repo: str | None = None

    def __post_init__(self) -> None:
        """TRL takes truth values for `scale_rewards`, too."""
        super().__post_init__()
        self.scale_rewards = {True: "group", False: "none"}.get(self.scale_rewards, self.scale_rewards)


@dataclass
class RLOOConfig(SharedConfig):
    """The settings of `RLOOTrainer`."""

    num_generations: int | None = 2
    beta: float = 0.05
    normalize_advantages: bool = False
    reward_clip_range: tuple[float, float] | None = field(default=None)
