"""Presets fill what was left out, and only that."""

from typing import get_args

import pytest

from groupwise.config import PRESETS, load_recipe
from groupwise.config.sections import AlgorithmSection
from groupwise.maths.advantages import ADVANTAGES
from groupwise.maths.divergences import DIVERGENCES
from groupwise.maths.ratios import RATIOS
from groupwise.maths.surrogates import SURROGATES
from groupwise.maths.weights import WEIGHTS

SOURCE = {"model": {"id": "x"}, "task": {"kind": "gsm8k"}}

CLIPPED = {"ratio": "token", "surrogate": "clipped_ratio", "divergence": "k3", "beta": 0.0, "clip_low": 0.2}
EXPECTED = {
    "grpo": CLIPPED | {"advantage": "group_normalized", "weights": "sequence_mean", "clip_high": 0.2},
    "dr_grpo": CLIPPED | {"advantage": "group_centred", "weights": "fixed_length", "clip_high": 0.2},
    "dapo": CLIPPED
    | {"advantage": "group_normalized", "weights": "token_mean", "clip_high": 0.28}
    | {"selection": "dynamic_sampling"},
}
DEFAULTS = {
    "kl_in": "loss",
    "kl_ratio": False,
    "beta_control": "fixed",
    "entropy": 0.0,
    "entropy_control": "fixed",
    "anchor": "policy",
    "correction": None,
    "filters": [],
    "selection": "everything",
    "length_penalty": "none",
    "mask_truncated": False,
    "settings": {},
}


def test_every_preset_can_be_chosen_and_fills_every_required_key():
    assert list(PRESETS) == list(get_args(AlgorithmSection.model_fields["preset"].annotation))
    fields = AlgorithmSection.model_fields
    required = {name for name, info in fields.items() if info.is_required()}
    assert all(required <= set(entries) <= set(fields) for entries in PRESETS.values())
    assert {"grpo", "dr_grpo", "dapo", "bnpo", "gspo", "cispo", "rloo", "reinforce_pp", "gmpo"} <= set(PRESETS)
    assert {"sapo", "luspo", "maxrl"} <= set(PRESETS)


def test_no_two_presets_are_one():
    told = [{**DEFAULTS, **entries} for entries in PRESETS.values()]
    assert [a for i, a in enumerate(told) if a in told[:i]] == []


@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_tables_have_what_the_presets_name(preset):
    entries = PRESETS[preset]
    assert entries["advantage"] in ADVANTAGES
    assert entries["ratio"] in RATIOS
    assert entries["surrogate"] in SURROGATES
    assert entries["weights"] in WEIGHTS
    assert entries["divergence"] in DIVERGENCES


@pytest.mark.parametrize("preset", list(EXPECTED))
def test_a_preset_is_its_entries(preset):
    algorithm = load_recipe(SOURCE, [f"algorithm.preset={preset}"]).recipe.algorithm
    assert algorithm.model_dump() == {"preset": preset, **DEFAULTS, **EXPECTED[preset]}


def test_no_preset_means_grpo():
    loaded = load_recipe(SOURCE)
    assert loaded.recipe.algorithm.model_dump() == {"preset": "grpo", **EXPECTED["grpo"], **DEFAULTS}
    assert loaded.origins["algorithm.preset"] == "default"
    assert loaded.origins["algorithm.weights"] == "preset grpo"


def test_what_the_user_wrote_stays(desk, smallest):
    loaded = desk.load(smallest + '[algorithm]\npreset = "dapo"\nbeta = 0.04\n', "algorithm.clip_high=0.3")
    assert loaded.recipe.algorithm.model_dump() == {
        "preset": "dapo",
        **DEFAULTS,
        **EXPECTED["dapo"],
        "beta": 0.04,
        "clip_high": 0.3,
    }
    assert {key: loaded.origins[f"algorithm.{key}"] for key in ("preset", "beta", "clip_high", "clip_low")} == {
        "preset": "recipe.toml:4",
        "beta": "recipe.toml:5",
        "clip_high": "command line",
        "clip_low": "preset dapo",
    }


def test_a_preset_that_could_change_nothing_is_refused(desk, smallest):
    resolved = desk.load(smallest).to_toml()
    assert desk.load(resolved, "algorithm.preset=grpo").recipe == desk.load(smallest).recipe
    (complaint,) = desk.complaints(resolved, "algorithm.preset=dapo")
    assert complaint == (
        "command line  algorithm.preset: changes nothing, for every setting that a preset fills is given already. "
        "Take those of [algorithm] out of the recipe, or override them one by one"
    )


def test_an_unknown_preset_is_one_mistake_not_eight(desk, smallest):
    names = ", ".join(f'"{name}"' for name in PRESETS)
    assert desk.complaints(smallest, "algorithm.preset=xyz") == [
        f'command line  algorithm.preset: got "xyz", needs one of {names} (default "grpo"). '
        "Named set of entries (`groupwise.config.PRESETS`) for the settings below that you leave out."
    ]


def test_a_preset_may_fill_what_has_a_default(desk, smallest):
    loaded = desk.load(smallest, "algorithm.preset=high_entropy")
    assert loaded.recipe.algorithm.filters == ["top_entropy"]
    assert loaded.origins["algorithm.filters"] == "preset high_entropy"
    assert loaded.origins["algorithm.kl_in"] == "default"
    assert desk.load(loaded.to_toml()).recipe == loaded.recipe
    assert desk.load(smallest, "algorithm.preset=high_entropy", "algorithm.filters=[]").recipe.algorithm.filters == []


def test_settings_of_entries_are_a_table(desk, smallest):
    text = smallest + '[algorithm]\nsurrogate = "two_sided"\nsettings.delta = 3.0\n'
    loaded = desk.load(text, "algorithm.settings.more=[1.0,2.0]")
    assert loaded.recipe.algorithm.settings == {"delta": 3.0, "more": [1.0, 2.0]}
    assert loaded.origins["algorithm.settings.delta"] == "recipe.toml:5"
    assert desk.load(loaded.to_toml()).recipe == loaded.recipe


def test_the_kl_stands_in_one_place(desk, smallest):
    both = "algorithm.beta = 0.1\nalgorithm.kl_ratio = true\nalgorithm.kl_in = 'reward'\n"
    assert desk.complaints(smallest + both) == [
        "recipe.toml:4  algorithm.kl_ratio: multiplies a KL in the loss, but algorithm.kl_in puts it into the reward. "
        "Drop one"
    ]
