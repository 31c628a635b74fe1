"""TRL 1.16.0's own GRPO, GMPO and RLOO maths, run without a model: the trainer's methods on an object that was never
constructed, over a table of logits (see `toy_tabular`).

`scored` is TRL's `_generate_and_score_completions`: rewards to advantages, old and reference logprobs, importance
ratios. `loss` is its `_compute_loss` on one micro-batch. What a model or an engine would have done is filled in.
"""

from collections import defaultdict
from types import SimpleNamespace

import torch
from toy_tabular import entropies_of, logprobs_of
from trl.experimental.gmpo.gmpo_trainer import GMPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

DEFAULTS = {
    "loss_type": "grpo",
    "importance_sampling_level": "token",
    "epsilon_low": 0.2,
    "epsilon_high": 0.2,
    "beta": 0.0,
    "scale_rewards": "group",
    "multi_objective_aggregation": "sum_then_normalize",
    "top_entropy_quantile": 1.0,
    "off_policy_mask_threshold": None,
    "use_vllm": False,
    "vllm_importance_sampling_correction": True,
    "vllm_importance_sampling_mode": "token_truncate",
    "vllm_importance_sampling_clip_min": None,
    "vllm_importance_sampling_clip_max": 3.0,
    "num_iterations": 1,
    "mask_truncated_completions": False,
    "entropy_coef": 0.0,
    "use_adaptive_entropy": False,
    "normalize_advantages": False,
    "reward_clip_range": None,
}
ARGUMENTS = {
    "use_bias_correction_kl": False,
    "delta": None,
    "sapo_temperature_pos": 1.0,
    "sapo_temperature_neg": 1.05,
    "vespo_k_pos": 2.0,
    "vespo_lambda_pos": 3.0,
    "vespo_k_neg": 3.0,
    "vespo_lambda_neg": 2.0,
    "entropy_coef_min": 0.0,
    "entropy_coef_max": 1.0,
    "entropy_coef_delta": 0.005,
    "entropy_target": 0.2,
    "gradient_checkpointing_kwargs": None,
}
TRAINERS = {"grpo": GRPOTrainer, "gmpo": GMPOTrainer, "rloo": RLOOTrainer}


class Oracle:
    """One generation batch of TRL: equal groups, in order, `micro_batches` of equal size."""

    def __init__(
        self, groups, *, reference, micro_batches=1, temperature=1.0, max_new_tokens=9, trainer="grpo", **given
    ):
        self.groups, self.reference, self.temperature = groups, reference, temperature
        self.rollouts = [rollout for group in groups for rollout in group.rollouts]
        self.table = None
        self.trainer = TRAINERS[trainer].__new__(TRAINERS[trainer])
        arguments = {name: given.pop(name, value) for name, value in ARGUMENTS.items()}
        settings = {name: given.pop(name, value) for name, value in DEFAULTS.items()}
        weights = given.pop("reward_weights", None)
        assert not given, given
        names = list(self.rollouts[0].reward_parts)
        rows = len(self.rollouts)
        model = SimpleNamespace(training=True, is_gradient_checkpointing=False)
        vars(self.trainer).update(
            settings,
            args=SimpleNamespace(
                per_device_train_batch_size=rows // micro_batches, steps_per_generation=micro_batches, **arguments
            ),
            accelerator=_accelerator(),
            current_gradient_accumulation_steps=micro_batches,
            max_completion_length=max_new_tokens,
            num_generations=len(groups[0].rollouts),
            model=model,
            ref_model=object(),
            reward_funcs=names,
            reward_func_names=names,
            reward_weights=torch.tensor([1.0] * len(names) if weights is None else weights, dtype=torch.float64),
            environment_factories=None,
            environments=None,
            tools=None,
            pad_to_multiple_of=None,
            # Whose completions ended by themselves is known by their last token, and each has one of its own here.
            eos_token_ids=[
                r.completion.token_ids[-1]
                for r in self.rollouts
                if r.completion.finish_reason == "stop" and r.completion.token_ids
            ],
            _tokenizer=SimpleNamespace(pad_token_id=0),
            _is_vlm=False,
            log_multimodal=False,
            aux_loss_enabled=False,
            _entropy_bonus_enabled=settings["entropy_coef"] != 0 or settings["use_adaptive_entropy"],
            _last_world_entropy=float("inf"),
            _entropy_window_stats=None,
            _metrics={"train": defaultdict(list)},
            _logs=defaultdict(list, rewards=defaultdict(list), extra=defaultdict(list)),
            _pending_extra_logs={},
            _pending_metrics={},
            _generate=self._generate,
            _calculate_rewards=self._calculate_rewards,
            _get_per_token_logps_and_entropies=self._logps_and_entropies,
        )
        self.trainer.args.gradient_accumulation_steps = micro_batches

    def scored(self, table):
        """What TRL makes of the batch before it trains on it, with the policy as it is now."""
        self.table = table.detach()
        inputs = [{"prompt": group.problem.id} for group in self.groups for _ in group.rollouts]
        return type(self.trainer)._generate_and_score_completions(self.trainer, inputs)

    def step(self, table, inputs, micro_batches=1):
        """Loss and gradient of one accumulation window."""
        self.table = table.detach().clone().requires_grad_()
        rows = len(self.rollouts) // micro_batches
        total = 0.0
        for index in range(micro_batches):
            piece = {
                name: value[index * rows : (index + 1) * rows] if getattr(value, "ndim", 0) else value
                for name, value in inputs.items()
            }
            self.trainer.accelerator.sync_gradients = index == micro_batches - 1
            loss = self.trainer._compute_loss(self.trainer.model, piece)
            loss.backward()
            total += loss.item()
        return total, self.table.grad

    def _generate(self, prompts):
        prompt_ids = [list(group.prompt_ids) for group in self.groups for _ in group.rollouts]
        ids = [list(rollout.completion.token_ids) for rollout in self.rollouts]
        if isinstance(self.trainer, RLOOTrainer):
            return prompt_ids, ids, ids
        logps = [list(r.completion.logprobs) for r in self.rollouts] if self.trainer.use_vllm else None
        spoken = [list(r.completion.own) or [True] * len(r.completion.token_ids) for r in self.rollouts]
        mask = [[int(own) for own in row] for row in spoken] if any(r.completion.own for r in self.rollouts) else None
        return prompt_ids, ids, mask, ids, logps, {}, None, None

    def _calculate_rewards(self, *_):
        rows = [rollout.reward_parts for rollout in self.rollouts]
        return torch.tensor(
            [[float("nan") if x is None else x for x in parts.values()] for parts in rows], dtype=torch.float64
        )

    def _logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, *_, compute_entropy=False, **__):
        table = self.reference if model is self.trainer.ref_model else self.table
        tokens = input_ids[:, -logits_to_keep:]
        entropies = entropies_of(table, tokens, self.temperature).detach() if compute_entropy else None
        if compute_entropy and self.trainer._entropy_bonus_enabled:
            entropies = entropies_of(table, tokens, self.temperature)
        return logprobs_of(table, tokens, self.temperature), entropies, None


def _accelerator():
    return SimpleNamespace(
        device=torch.device("cpu"),
        num_processes=1,
        process_index=0,
        is_main_process=True,
        sync_gradients=True,
        gather=lambda tensor: tensor,
        gather_for_metrics=lambda tensor: tensor,
        pad_across_processes=lambda tensor, **_: tensor,
        reduce=lambda tensor, reduction: tensor,
    )
