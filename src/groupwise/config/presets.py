"""Presets: an algorithm's name stands for entries of the tables in `groupwise.maths`.

A preset fills the keys of `[algorithm]` that the user left out and touches no other. To add one: a line here, and its
name in `AlgorithmSection.preset`. Whether a table has an entry of that name is checked when the algorithm is made
from the recipe: config knows no maths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

from groupwise.config.draft import COMMAND_LINE, Draft, Origin

_PRESET = ("algorithm", "preset")

_GRPO: Mapping[str, Any] = {
    "advantage": "group_normalized",
    "ratio": "token",
    "surrogate": "clipped_ratio",
    "weights": "sequence_mean",
    "divergence": "k3",
    "beta": 0.0,
    "clip_low": 0.2,
    "clip_high": 0.2,
}


@dataclass(frozen=True, slots=True)
class Preset:
    """A named algorithm: what it is, with its paper, and the settings of `[algorithm]` that make it."""

    name: str
    about: str
    entries: Mapping[str, Any]


def _preset(name: str, about: str, **changed: Any) -> Preset:
    return Preset(name, about, MappingProxyType({**_GRPO, **changed}))


# beta is 0 everywhere, as in most runs: set it to have the KL of the paper, where the paper has it.
ALL_PRESETS = (
    _preset("grpo", "DeepSeekMath, arXiv 2402.03300"),
    _preset(
        "dr_grpo",
        "no division by the std, none by the length; arXiv 2503.20783",
        advantage="group_centred",
        weights="fixed_length",
    ),
    _preset(
        "dapo",
        "every token counts the same, the ratio may rise further than it may fall, groups that say nothing are "
        "replaced (its soft_overlong is a length_penalty of its own); arXiv 2503.14476",
        weights="token_mean",
        clip_high=0.28,
        selection="dynamic_sampling",
    ),
    _preset("bnpo", "GRPO with every token counting the same, as TRL's bnpo", weights="token_mean"),
    _preset(
        "lite_ppo",
        "the std of the whole step, and every token counts the same; arXiv 2508.08221",
        advantage="batch_normalized",
        weights="token_mean",
    ),
    _preset(
        "gspo",
        "one ratio for the whole completion; arXiv 2507.18071",
        ratio="sequence",
        clip_low=3e-4,
        clip_high=4e-4,
    ),
    _preset(
        "gspo_token",
        "GSPO whose gradient stays with the token; arXiv 2507.18071",
        ratio="sequence_token",
        clip_low=3e-4,
        clip_high=4e-4,
    ),
    _preset(
        "luspo",
        "GSPO times the length of the completion; arXiv 2602.05261",
        ratio="sequence",
        weights="sequence_sum",
        clip_low=3e-4,
        clip_high=4e-4,
    ),
    _preset(
        "gmpo",
        "geometric mean of clipped ratios; arXiv 2507.20673",
        surrogate="gmpo",
        clip_low=0.4,
        clip_high=0.4,
    ),
    _preset(
        "cispo",
        "the weight is clipped, no token is lost; MiniMax-M1, arXiv 2506.13585",
        surrogate="cispo_clip",
        weights="token_mean",
        clip_low=1.0,
        clip_high=4.0,
    ),
    _preset(
        "scale_rl",
        "CISPO under a cap, std of the whole step, mean by prompt; arXiv 2510.13786",
        advantage="batch_normalized",
        surrogate="cispo_cap",
        weights="prompt_mean",
    ),
    _preset("sapo", "a soft gate in place of the clip; arXiv 2511.20347", surrogate="sapo"),
    _preset(
        "vespo",
        "a smooth weight on whole completions, for old samples; arXiv 2602.10693",
        surrogate="vespo",
        weights="token_mean",
    ),
    _preset(
        "dppo",
        "a trust region in probabilities instead of ratios; arXiv 2602.04879",
        surrogate="dppo_tv",
        weights="token_mean",
    ),
    _preset(
        "clip_cov",
        "against the collapse of entropy, by leaving tokens out; arXiv 2505.22617",
        surrogate="clip_cov",
        weights="token_mean",
    ),
    _preset(
        "kl_cov",
        "against the collapse of entropy, by holding tokens back; arXiv 2505.22617",
        surrogate="kl_cov",
        weights="token_mean",
    ),
    _preset(
        "high_entropy",
        "DAPO on the fifth of the tokens that is least sure; arXiv 2506.01939",
        weights="token_mean",
        clip_high=0.28,
        filters=["top_entropy"],
    ),
    _preset(
        "intellect_2",
        "a bound on the ratio of bad tokens, too; arXiv 2505.07291",
        surrogate="two_sided",
        weights="token_mean",
    ),
    _preset(
        "rloo",
        "compared with the mean of the others, a completion is one action; arXiv 2402.14740",
        advantage="leave_one_out",
        ratio="product",
        divergence="k1",
        kl_in="reward",
    ),
    _preset(
        "reinforce_pp",
        "no group: compared with the whole step; arXiv 2501.03262",
        advantage="reinforce_pp",
        weights="token_mean",
        divergence="k1",
        kl_in="reward",
    ),
    _preset(
        "reinforce_pp_baseline",
        "the group's mean, then the spread of the whole step; arXiv 2501.03262",
        advantage="reinforce_pp_baseline",
        weights="token_mean",
        divergence="k2",
    ),
    _preset(
        "opo",
        "the baseline of least variance, strictly on policy; arXiv 2505.23585",
        advantage="optimal_baseline",
        surrogate="reinforce",
        weights="token_mean",
    ),
    _preset(
        "gpg",
        "the plain policy gradient, scaled by the groups that speak; arXiv 2504.02546",
        advantage="gpg",
        surrogate="reinforce",
        weights="token_mean",
    ),
    _preset(
        "maxrl",
        "rare successes count the more; arXiv 2602.02710",
        advantage="maxrl",
        weights="token_mean",
    ),
    _preset(
        "gdpo",
        "each reward function normalised for itself; arXiv 2601.05242",
        advantage="gdpo",
    ),
    _preset(
        "pass_at_k",
        "the best of k is what counts; arXiv 2508.10751",
        advantage="pass_at_k",
        weights="token_mean",
        clip_high=0.28,
    ),
    _preset("gfpo", "only the shortest of a group train; arXiv 2508.09726", advantage="shortest", weights="token_mean"),
    _preset(
        "topr",
        "good completions by likelihood, bad ones by a ratio of at most 1; arXiv 2503.14286",
        advantage="group_centred",
        ratio="product",
        surrogate="topr",
    ),
    _preset(
        "dro",
        "the policy gradient and a spring to the old policy; arXiv 2405.19107",
        advantage="group_centred",
        surrogate="dro",
        weights="token_mean",
    ),
)

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType({preset.name: preset.entries for preset in ALL_PRESETS})


def fill_preset(draft: Draft) -> None:
    """Fill what `[algorithm]` leaves out. An unknown preset is filled as grpo, so that only its name is reported."""
    section = draft.tree.setdefault("algorithm", {})
    if not isinstance(section, dict):
        return
    algorithm = cast("dict[str, Any]", section)
    name = algorithm.get("preset", "grpo")
    entries = PRESETS.get(name, PRESETS["grpo"]) if isinstance(name, str) else PRESETS["grpo"]
    missing = [key for key in entries if key not in algorithm]
    differs = any(algorithm.get(key) != entries[key] for key in entries)
    if not missing and differs and draft.origin(_PRESET).source == COMMAND_LINE:
        draft.note(
            _PRESET,
            "changes nothing, for every setting that a preset fills is given already. Take those of [algorithm] out "
            "of the recipe, or override them one by one",
        )
    for key in missing:
        algorithm[key] = entries[key]
        draft.given["algorithm", key] = Origin(f"preset {name}")
