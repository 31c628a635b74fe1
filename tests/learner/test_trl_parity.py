"""Whole updates against TRL 1.16.0's own code: the same tensors give the same advantages, loss and gradient.

Ours goes through the real learner: packed, cut by a token budget, two passes, float64. TRL's side is its trainers'
methods (see `trl_oracle`): padded, in micro-batches of equal rows, one accumulation window for each of our updates
(S = GA), which is where its `dapo`, `cispo` and `vespo` are the mean over the tokens of the optimizer step.

They agree to 1e-6 relative where TRL computes in float64, with everything that both have. Where TRL depends on how the
window is cut (`bnpo`, the entropy quantile and the bonus are means over a micro-batch) it is given one micro-batch.
"""

from dataclasses import replace

import pytest
import torch
from toy_learner import MAX_NEW_TOKENS, Watched, advantaged, learner_of, update
from toy_tabular import TabularPolicy, groups_of, with_logprobs
from trl_oracle import Oracle

from groupwise.config.presets import PRESETS
from groupwise.config.sections import AlgorithmSection
from groupwise.learner.algorithm import Algorithm
from groupwise.training.selection import masked

LENGTHS = [[3, 9, 1, 4], [7, 2, 5, 6], [1, 8, 3, 5]]
REWARDS = [[1.0, 0.0, 0.5, 0.2], [0.0, 0.0, 1.0, 3.0], [2.0, -1.0, 0.3, 0.3]]
LOW, HIGH = 0.1, 0.25

VARIANTS = {
    # name: (ours, TRL's)
    "grpo": ({}, {"loss_type": "grpo"}),
    "dr_grpo": (
        {"weights": "fixed_length", "advantage": "group_centred"},
        {"loss_type": "dr_grpo", "scale_rewards": "none"},
    ),
    "dapo": ({"weights": "token_mean"}, {"loss_type": "dapo"}),
    "luspo": (
        {"weights": "sequence_sum", "ratio": "sequence"},
        {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    ),
    "sequence sums of tokens": ({"weights": "sequence_sum"}, {"loss_type": "luspo"}),
    "gspo": ({"ratio": "sequence"}, {"loss_type": "grpo", "importance_sampling_level": "sequence"}),
    "gspo, token mean": (
        {"ratio": "sequence", "weights": "token_mean"},
        {"loss_type": "dapo", "importance_sampling_level": "sequence"},
    ),
    "cispo": (
        {"surrogate": "cispo_cap", "weights": "token_mean", "settings": {"cap": 1.05}},
        {"loss_type": "cispo", "epsilon_high": 1.05},
    ),
    "cispo by sequence": (
        {"surrogate": "cispo_cap", "weights": "token_mean", "ratio": "sequence", "settings": {"cap": 1.05}},
        {"loss_type": "cispo", "epsilon_high": 1.05, "importance_sampling_level": "sequence"},
    ),
    "sapo": (
        {"surrogate": "sapo", "settings": {"tau_pos": 1.2, "tau_neg": 2.0}},
        {"loss_type": "sapo", "sapo_temperature_pos": 1.2, "sapo_temperature_neg": 2.0},
    ),
    "sapo by sequence": (
        {"surrogate": "sapo", "ratio": "sequence"},
        {"loss_type": "sapo", "importance_sampling_level": "sequence"},
    ),
    "two sided": ({"surrogate": "two_sided", "settings": {"delta": 1.3}}, {"loss_type": "grpo", "delta": 1.3}),
    "two sided, token mean": (
        {"surrogate": "two_sided", "weights": "token_mean", "settings": {"delta": 1.3}},
        {"loss_type": "dapo", "delta": 1.3},
    ),
    "vespo": (
        {
            "surrogate": "vespo",
            "weights": "token_mean",
            "settings": {"k_lambda_pos": [1.5, 2.5], "k_lambda_neg": [2.0, 1.0]},
        },
        {
            "loss_type": "vespo",
            "vespo_k_pos": 1.5,
            "vespo_lambda_pos": 2.5,
            "vespo_k_neg": 2.0,
            "vespo_lambda_neg": 1.0,
        },
    ),
    "batch std": ({"advantage": "batch_normalized"}, {"loss_type": "grpo", "scale_rewards": "batch"}),
}
KL = {
    "no KL": ({}, {}),
    "KL": ({"beta": 0.3}, {"beta": 0.3}),
    "KL times ratio": ({"beta": 0.3, "kl_ratio": True}, {"beta": 0.3, "use_bias_correction_kl": True}),
}
CORRECTIONS = {
    "truncated tokens": ("token_truncate", 0.8, 1.2),
    "masked tokens": ("token_mask", 0.7, 1.3),
    "truncated sequences": ("sequence_truncate", 0.5, 1.4),
    "masked sequences": ("sequence_mask", 0.6, 1.7),
}


def algorithm_of(**settings):
    entries = {**PRESETS["grpo"], "clip_low": LOW, "clip_high": HIGH, **settings}
    unclipped = entries["surrogate"] in ("cispo_cap", "sapo", "vespo", "reinforce")
    entries |= {"clip_low": 0.2, "clip_high": 0.2} if unclipped else {}
    return Algorithm.of(AlgorithmSection(**entries), MAX_NEW_TOKENS)


def compare(
    ours, theirs, *, micro_batches=3, trainer="grpo", noise=None, lr=0.06, temperature=1.0, budget=20, groups=None
):
    """Two passes of both; returns the metrics and TRL's batch. `noise` makes a sampler that is not the policy."""
    policy, algorithm = TabularPolicy(), algorithm_of(**ours)
    groups = groups_of(LENGTHS, REWARDS) if groups is None else groups
    reference = policy.table.detach().clone()
    learner = learner_of(
        policy, algorithm, passes=2, optimizer={"lr": lr}, token_budget=budget, temperature=temperature
    )
    random = torch.Generator().manual_seed(9)
    policy.table.data.add_(0.2 * torch.randn(policy.table.shape, dtype=torch.float64, generator=random))
    groups = with_logprobs(groups, policy.table, noise or 0.0, temperature)
    oracle = Oracle(
        groups,
        reference=reference,
        micro_batches=micro_batches,
        temperature=temperature,
        max_new_tokens=MAX_NEW_TOKENS,
        trainer=trainer,
        **{"epsilon_low": LOW, "epsilon_high": HIGH, "num_iterations": 2, "use_vllm": noise is not None, **theirs},
    )
    inputs = oracle.scored(policy.table)
    penalties = learner.penalties(groups, sampler_is_exact=noise is None)
    groups = masked(advantaged(groups, algorithm, penalties), algorithm)
    ours_B = torch.tensor([r.advantage for group in groups for r in group.rollouts], dtype=torch.float64)
    torch.testing.assert_close(ours_B, inputs["advantages"], rtol=1e-9, atol=1e-12)

    watched = Watched(learner)
    report = update(learner, groups, exact=noise is None)
    losses = []
    for weights, gradients in zip(watched.weights, watched.gradients, strict=True):
        loss, gradient = oracle.step(weights["table"], inputs, micro_batches)
        assert gradient.abs().max() > 1e-4
        torch.testing.assert_close(gradients["table"], gradient, rtol=1e-6, atol=1e-12)
        losses.append(loss)
    assert len(losses) == 2
    assert report["loss"] == pytest.approx(sum(losses) / 2, rel=1e-6)
    return report, inputs


@pytest.fixture(autouse=True)
def float64():
    """Where TRL makes tensors of Python's numbers, they are as exact as ours."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("kl", KL)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_that_both_have(variant, kl):
    (ours, theirs), (our_kl, their_kl) = VARIANTS[variant], KL[kl]
    report, _ = compare({**ours, **our_kl}, {**theirs, **their_kl})
    assert abs(report["ratio"] - 1.0) > 1e-3  # the second pass is off policy
    if "kl" in report:
        assert abs(report["kl"]) > 1e-3
    if ours.get("surrogate", "clipped_ratio") in ("clipped_ratio", "two_sided"):
        assert report["clip_low"] + report["clip_high"] > 0.01


# VESPO takes the corrections of single tokens only, in TRL as here (test_algorithm_checks).
TOGETHER = [(v, c) for v in VARIANTS for c in CORRECTIONS if v != "vespo" or "tokens" in c]


@pytest.mark.parametrize(("variant", "correction"), TOGETHER)
def test_every_variant_with_every_correction(variant, correction):
    (ours, theirs), (name, low, high) = VARIANTS[variant], CORRECTIONS[correction]
    settings = {**ours.get("settings", {}), "correction_low": low, "correction_high": high}
    report, inputs = compare(
        {**ours, "settings": settings, "correction": name, "beta": 0.2, "kl_ratio": True},
        {
            **theirs,
            "vllm_importance_sampling_mode": name,
            "vllm_importance_sampling_clip_min": low,
            "vllm_importance_sampling_clip_max": high,
            "beta": 0.2,
            "use_bias_correction_kl": True,
        },
        noise=0.3,
    )
    factors = inputs["importance_sampling_ratio"]
    edges = (factors == 0) if "mask" in name else (factors == low) | (factors == high)
    assert 0.02 < edges.double().mean() < 0.9  # some are beyond the bounds, and some are not
    assert report["mismatch/k3"] > 0.01


@pytest.mark.parametrize("noise", [None, 0.3], ids=["sampler is the policy", "sampler is off"])
@pytest.mark.parametrize("variant", ["grpo", "dapo", "gspo", "sapo", "cispo"])
def test_the_off_policy_mask(variant, noise):
    ours, theirs = VARIANTS[variant]
    settings = {**ours.get("settings", {}), "off_policy_limit": 0.02}
    correction = {} if noise is None else {"correction": "token_truncate"}
    settings |= {} if noise is None else {"correction_high": 3.0}
    report, _ = compare(
        {**ours, **correction, "settings": settings, "filters": ["off_policy_mask"], "beta": 0.2},
        {**theirs, "off_policy_mask_threshold": 0.02, "beta": 0.2},
        noise=noise,
    )
    del settings["off_policy_limit"]
    unmasked = {**ours, **correction, "settings": settings, "beta": 0.2}
    without, _ = compare(unmasked, {**theirs, "beta": 0.2}, noise=noise)
    assert report["loss"] != pytest.approx(without["loss"], rel=1e-6)  # it masked something


@pytest.mark.parametrize("variant", ["grpo", "dapo", "gspo", "vespo"])
def test_only_the_least_certain_tokens(variant):
    ours, theirs = VARIANTS[variant]
    settings = {**ours.get("settings", {}), "top_share": 0.33}
    compare(
        {**ours, "settings": settings, "filters": ["top_entropy"], "beta": 0.2},
        {**theirs, "top_entropy_quantile": 0.33, "beta": 0.2},
        micro_batches=1,
    )


@pytest.mark.parametrize("variant", ["grpo", "dr_grpo", "dapo"])
def test_the_entropy_bonus(variant):
    ours, theirs = VARIANTS[variant]
    compare({**ours, "entropy": 0.4}, {**theirs, "entropy_coef": 0.4}, micro_batches=1)


@pytest.mark.parametrize("target", [0.2, 9.0], ids=["above its target", "below its target"])
def test_the_adaptive_entropy_bonus(target):
    settings = {"entropy_target": target, "entropy_step": 0.05, "entropy_max": 0.5}
    report, _ = compare(
        {"entropy": 0.3, "entropy_control": "stepped", "settings": settings},
        {
            "loss_type": "grpo",
            "entropy_coef": 0.3,
            "use_adaptive_entropy": True,
            "entropy_target": target,
            "entropy_coef_delta": 0.05,
            "entropy_coef_max": 0.5,
        },
        micro_batches=1,
    )
    # two updates: twice up, and applied; or twice down, and not applied
    assert report["entropy_coefficient"] == pytest.approx(0.4 if target == 9.0 else 0.0)


def test_bnpo_in_one_micro_batch_is_the_token_mean():
    compare({"weights": "token_mean", "beta": 0.2}, {"loss_type": "bnpo", "beta": 0.2}, micro_batches=1)
    with pytest.raises(AssertionError, match="not close"):  # cut in three, TRL's depends on the cut
        compare({"weights": "token_mean", "beta": 0.2}, {"loss_type": "bnpo", "beta": 0.2}, micro_batches=3)


@pytest.mark.parametrize("beta", [0.0, 0.2])
def test_gmpo(beta):
    ours = {"surrogate": "gmpo", "beta": beta}
    report, _ = compare(ours, {"beta": beta}, trainer="gmpo")
    assert report["clip_low"] + report["clip_high"] > 0.01


@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_rloo_with_the_kl_in_the_reward(beta):
    kl = {"divergence": "k1", "kl_in": "reward"} if beta else {}
    # TRL leaves the division by the accumulation steps to the Trainer, so it is one micro-batch here.
    compare(
        {"advantage": "leave_one_out", "ratio": "product", "beta": beta, **kl},
        {"beta": beta},
        trainer="rloo",
        micro_batches=1,
        lr=0.01,
    )


def test_at_another_temperature():
    compare({"beta": 0.3}, {"loss_type": "grpo", "beta": 0.3}, temperature=0.7)


def reworked(change):
    """The groups with each completion changed by its place."""
    groups = groups_of(LENGTHS, REWARDS)
    place = iter(range(99))
    return [
        replace(g, rollouts=tuple(replace(r, completion=change(r.completion, next(place))) for r in g.rollouts))
        for g in groups
    ]


WITH_ALL = {"beta": 0.2, "kl_ratio": True}, {"beta": 0.2, "use_bias_correction_kl": True}
CORRECTED = (
    {"correction": "sequence_truncate", "correction_low": 0.5, "correction_high": 1.4},
    {
        "vllm_importance_sampling_mode": "sequence_truncate",
        "vllm_importance_sampling_clip_min": 0.5,
        "vllm_importance_sampling_clip_max": 1.4,
    },
)


def compare_all(variant, **settings):
    """With a KL and, where the variant takes one by sequence, a correction."""
    (ours, theirs), (our_kl, their_kl) = VARIANTS[variant], WITH_ALL
    if variant == "vespo":
        return compare({**ours, **our_kl}, {**theirs, **their_kl}, **settings)
    (our_correction, their_correction), own = CORRECTED, ours.get("settings", {})
    bounds = {name: value for name, value in our_correction.items() if name != "correction"}
    ours = {**ours, **our_kl, "correction": our_correction["correction"], "settings": {**own, **bounds}}
    return compare(ours, {**theirs, **their_kl, **their_correction}, noise=0.3, **settings)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_an_environment_said_is_masked(variant):
    """TRL's tool mask: results of tools stand among a completion's tokens and are none of its own."""

    def talk(completion, place):
        own = tuple(
            t % 3 != place % 3 or t == place % len(completion.token_ids) for t in range(len(completion.token_ids))
        )
        return replace(completion, own=own)

    report, inputs = compare_all(variant, groups=reworked(talk))
    own = inputs["tool_mask"].mul(inputs["completion_mask"]).sum()
    assert report["trained_tokens"] == 2 * own  # of two passes
    assert own < inputs["completion_mask"].sum() == sum(map(sum, LENGTHS))


@pytest.mark.parametrize("variant", VARIANTS)
def test_truncated_completions_are_masked(variant):
    def cut(completion, place):
        return replace(completion, finish_reason="length") if place % 3 == 1 else completion

    (ours, theirs), groups = VARIANTS[variant], reworked(cut)
    report, _ = compare(
        {**ours, "mask_truncated": True, "beta": 0.2},
        {**theirs, "mask_truncated_completions": True, "beta": 0.2},
        groups=groups,
    )
    kept = [n for place, n in enumerate(n for row in LENGTHS for n in row) if place % 3 != 1]
    assert report["trained_tokens"] == 2 * sum(kept)


@pytest.mark.parametrize("variant", VARIANTS)
def test_empty_completions_count(variant):
    """A completion without a token trains nothing, and stays one of the batch."""
    groups = groups_of([[3, 0, 1, 4], [0, 2, 5, 6], [1, 8, 0, 5]], REWARDS)
    compare_all(variant, groups=groups)


@pytest.mark.parametrize("budget", [1, 13, 10_000])
def test_whatever_our_token_budget(budget):
    compare({"beta": 0.3, "weights": "token_mean"}, {"loss_type": "dapo", "beta": 0.3}, budget=budget)


# --- advantages ------------------------------------------------------------------------------------------------------

A_NAN = [
    [1.0, None, 0.5, 0.2],
    [0.0, 0.0, 0.0, 0.0],
    [None, None, None, 2.0],
    [0.3, -1.0, 0.3, 0.3],
    [None, None, None, None],
]


@pytest.mark.parametrize(
    ("entry", "theirs"),
    [
        ("group_normalized", {"scale_rewards": "group"}),
        ("group_centred", {"scale_rewards": "none"}),
        ("batch_normalized", {"scale_rewards": "batch"}),
        ("leave_one_out", {"trainer": "rloo"}),
    ],
)
def test_advantages_with_rewards_that_are_missing(entry, theirs):
    groups = groups_of([[1] * 4] * 5, A_NAN)
    inputs = Oracle(groups, reference=None, **theirs).scored(TabularPolicy().table)
    ours = algorithm_of(advantage=entry).advantages(groups)
    assert [a for group in ours for a in group] == pytest.approx(inputs["advantages"].tolist(), rel=1e-9, abs=1e-12)


def test_gdpo_with_functions_that_do_not_always_grade():
    random = torch.Generator().manual_seed(3)
    values = torch.randn(3, 4, 2, generator=random).round(decimals=3).tolist()
    values[0][1] = [None, 0.5]
    values[1][2] = [None, None]
    values[2] = [[0.5, x] for _, x in values[2]]
    rewards = [[{"a": a, "b": b} for a, b in group] for group in values]
    groups = groups_of([[1] * 4] * 3, rewards)
    theirs = {"multi_objective_aggregation": "normalize_then_sum", "reward_weights": [1.0, 0.3]}
    inputs = Oracle(groups, reference=None, **theirs).scored(TabularPolicy().table)
    algorithm = replace(algorithm_of(advantage="gdpo"), reward_weights={"a": 1.0, "b": 0.3})
    ours = [a for group in algorithm.advantages(groups) for a in group]
    assert ours == pytest.approx(inputs["advantages"].tolist(), rel=1e-9, abs=1e-12)


# --- the comparison can fail -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"weights": "token_mean"}, {"loss_type": "grpo"}),
        ({"beta": 0.3}, {"loss_type": "grpo", "beta": 0.3, "use_bias_correction_kl": True}),
        ({"beta": 0.3, "divergence": "k2"}, {"loss_type": "grpo", "beta": 0.3}),
        ({"ratio": "sequence"}, {"loss_type": "grpo"}),
        ({"surrogate": "sapo"}, {"loss_type": "grpo"}),
        ({"advantage": "group_centred"}, {"loss_type": "grpo"}),
        ({"clip_low": 0.15}, {"loss_type": "grpo"}),
    ],
)
def test_the_comparison_tells_variants_apart(ours, theirs):
    with pytest.raises(AssertionError, match="not close"):
        compare(ours, theirs)
