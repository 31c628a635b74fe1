"""Presets fill what was left out, and only that."""

from typing import get_args

import pytest

from groupwise.config import PRESETS, load_recipe
from groupwise.config.sections import AlgorithmSection
from groupwise.maths.advantages import ADVANTAGES
from groupwise.maths.divergences import DIVERGENCES
from groupwise.maths.surrogates import SURROGATES
from groupwise.maths.weights import WEIGHTS

SOURCE = {"model": {"id": "x"}, "task": {"kind": "gsm8k"}}

CLIPPED = {"surrogate": "clipped_ratio", "divergence": "k3", "beta": 0.0, "clip_low": 0.2}
EXPECTED = {
    "grpo": CLIPPED | {"advantage": "group_normalized", "weights": "sequence_mean", "clip_high": 0.2},
    "dr_grpo": CLIPPED | {"advantage": "group_centred", "weights": "fixed_length", "clip_high": 0.2},
    "dapo": CLIPPED | {"advantage": "group_normalized", "weights": "token_mean", "clip_high": 0.28},
}


def test_every_preset_can_be_chosen_and_fills_every_required_key():
    assert list(PRESETS) == list(get_args(AlgorithmSection.model_fields["preset"].annotation))
    required = {name for name, info in AlgorithmSection.model_fields.items() if info.is_required()}
    assert all(set(entries) == required for entries in PRESETS.values())


@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_tables_have_what_the_presets_name(preset):
    entries = PRESETS[preset]
    assert entries["advantage"] in ADVANTAGES
    assert entries["surrogate"] in SURROGATES
    assert entries["weights"] in WEIGHTS
    assert entries["divergence"] in DIVERGENCES


@pytest.mark.parametrize("preset", list(EXPECTED))
def test_a_preset_is_its_entries(preset):
    algorithm = load_recipe(SOURCE, [f"algorithm.preset={preset}"]).recipe.algorithm
    assert algorithm.model_dump() == {"preset": preset, **EXPECTED[preset]}


def test_no_preset_means_grpo():
    loaded = load_recipe(SOURCE)
    assert loaded.recipe.algorithm.model_dump() == {"preset": "grpo", **EXPECTED["grpo"]}
    assert loaded.origins["algorithm.preset"] == "default"
    assert loaded.origins["algorithm.weights"] == "preset grpo"


def test_what_the_user_wrote_stays(desk, smallest):
    loaded = desk.load(smallest + '[algorithm]\npreset = "dapo"\nbeta = 0.04\n', "algorithm.clip_high=0.3")
    assert loaded.recipe.algorithm.model_dump() == {
        "preset": "dapo",
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
    assert desk.complaints(smallest, "algorithm.preset=ppo") == [
        'command line  algorithm.preset: got "ppo", needs one of "grpo", "dr_grpo", "dapo" (default "grpo"). '
        "Named set of entries (`groupwise.config.PRESETS`) for the settings below that you leave out."
    ]
