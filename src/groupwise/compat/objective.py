"""TRL's objective as entries of our tables. `tests/learner/test_trl_parity.py` holds them against TRL's own code."""

from __future__ import annotations

from typing import Any

from groupwise.compat.config import GRPOConfig, RLOOConfig, SharedConfig
from groupwise.errors import RecipeError

ADVANTAGES = {"group": "group_normalized", "batch": "batch_normalized", "none": "group_centred"}
RATIOS = {"token": "token", "sequence": "sequence"}
WEIGHTS = {
    "grpo": "sequence_mean",
    "sapo": "sequence_mean",
    "bnpo": "token_mean",
    "dapo": "token_mean",
    "cispo": "token_mean",
    "vespo": "token_mean",
    "dr_grpo": "fixed_length",
    "luspo": "sequence_sum",
}
"""How each `loss_type` is averaged, over the whole optimizer step whatever the micro-batches are."""


def algorithm_settings(args: SharedConfig) -> dict[str, Any]:
    """`[algorithm]` and `[reference]` of the recipe.

    Example: `algorithm_settings(GRPOConfig())["algorithm.weights"]` is `"token_mean"`, as loss_type is "dapo"
    """
    settings = _rloo(args) if isinstance(args, RLOOConfig) else _grpo(args) if isinstance(args, GRPOConfig) else {}
    settings |= {"algorithm.beta": float(args.beta), "algorithm.mask_truncated": args.mask_truncated_completions}
    return settings


def reference_settings(args: SharedConfig, optimizer_steps: int) -> dict[str, Any]:
    """`[reference]`: TRL counts optimizer steps, of which a step of ours has `optimizer_steps`."""
    if not args.sync_ref_model:
        return {}
    if args.beta == 0:
        raise RecipeError(
            "sync_ref_model=True moves a reference that nothing uses while beta is 0: set beta, or drop it"
        )
    if args.ref_model_sync_steps % optimizer_steps:
        raise RecipeError(
            f"ref_model_sync_steps = {args.ref_model_sync_steps} falls into the middle of a batch, which is used for "
            f"{optimizer_steps} optimizer steps: make it a multiple of {optimizer_steps}"
        )
    return {
        "reference.every": args.ref_model_sync_steps // optimizer_steps,
        "reference.mix": args.ref_model_mixup_alpha,
    }


def _rloo(args: RLOOConfig) -> dict[str, Any]:
    return {
        "algorithm.preset": "rloo",
        "algorithm.clip_low": args.epsilon,
        "algorithm.clip_high": _high(args),
    }


def _grpo(args: GRPOConfig) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "algorithm.preset": "grpo",
        "algorithm.advantage": _chosen("scale_rewards", args.scale_rewards, ADVANTAGES),
        "algorithm.ratio": _chosen("importance_sampling_level", args.importance_sampling_level, RATIOS),
        "algorithm.weights": _chosen("loss_type", args.loss_type, WEIGHTS),
        **_surrogate(args),
        **_filters(args),
        **_entropy(args),
    }
    if args.beta > 0:
        settings["algorithm.kl_ratio"] = args.use_bias_correction_kl
    aggregation = args.multi_objective_aggregation
    if aggregation == "normalize_then_sum":
        settings["algorithm.advantage"] = "gdpo"
    elif aggregation != "sum_then_normalize":
        raise RecipeError(
            f"multi_objective_aggregation = {aggregation!r}: there are sum_then_normalize and normalize_then_sum"
        )
    return settings


def _surrogate(args: GRPOConfig) -> dict[str, Any]:
    """What `loss_type` and `delta` say about the term of a token."""
    clips = {"algorithm.clip_low": args.epsilon, "algorithm.clip_high": _high(args)}
    own: dict[str, dict[str, Any]] = {
        "sapo": {"tau_pos": args.sapo_temperature_pos, "tau_neg": args.sapo_temperature_neg},
        "vespo": {
            "k_lambda_pos": [args.vespo_k_pos, args.vespo_lambda_pos],
            "k_lambda_neg": [args.vespo_k_neg, args.vespo_lambda_neg],
        },
        "cispo": {"cap": _high(args)},
    }
    kind = args.loss_type
    if args.delta is not None and kind not in own:
        return {**clips, "algorithm.surrogate": "two_sided", "algorithm.settings.delta": args.delta}
    if kind not in own:
        return {**clips, "algorithm.surrogate": "clipped_ratio"}
    # The cap of TRL's cispo is epsilon_high itself, not 1 + epsilon_high.
    name = "cispo_cap" if kind == "cispo" else kind
    return {"algorithm.surrogate": name, **{f"algorithm.settings.{key}": value for key, value in own[kind].items()}}


def _filters(args: GRPOConfig) -> dict[str, Any]:
    names: list[str] = []
    settings: dict[str, Any] = {}
    if args.off_policy_mask_threshold is not None:
        names.append("off_policy_mask")
        settings["algorithm.settings.off_policy_limit"] = args.off_policy_mask_threshold
    if args.top_entropy_quantile < 1:
        names.append("top_entropy")
        settings["algorithm.settings.top_share"] = args.top_entropy_quantile
    return {"algorithm.filters": names, **settings} if names else {}


def _entropy(args: GRPOConfig) -> dict[str, Any]:
    settings: dict[str, Any] = {"algorithm.entropy": args.entropy_coef}
    if args.use_adaptive_entropy:
        settings |= {
            "algorithm.entropy_control": "stepped",
            "algorithm.settings.entropy_target": args.entropy_target,
            "algorithm.settings.entropy_step": args.entropy_coef_delta,
            "algorithm.settings.entropy_min": args.entropy_coef_min,
            "algorithm.settings.entropy_max": args.entropy_coef_max,
        }
    return settings


def _high(args: SharedConfig) -> float:
    return args.epsilon if args.epsilon_high is None else args.epsilon_high


def _chosen(name: str, value: str, known: dict[str, str]) -> str:
    if value not in known:
        raise RecipeError(f"{name} = {value!r}: there are {', '.join(known)}")
    return known[value]
