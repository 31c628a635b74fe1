"""What `groupwise algorithms` tells is what the tables and presets say."""

from groupwise.config.presets import PRESETS
from groupwise.learner.algorithm import TABLES
from groupwise.learner.catalogue import Setting, changed, entries, kinds, offered, presets


def test_everything_is_listed():
    assert [preset.name for preset in presets()] == list(PRESETS)
    assert kinds() == [table.kind for table in TABLES]
    assert [[entry.name for entry in entries(kind)] for kind in kinds()] == [list(table) for table in TABLES]


def test_an_entry_by_hand():
    entry = next(entry for entry in entries("surrogate") if entry.name == "two_sided")
    assert entry.summary.startswith("The clipped ratio with a bound for negative advantages, too:")
    assert entry.papers == ("arXiv 2505.07291",)
    assert entry.data == ("log_ratio_T", "advantages_T")
    assert entry.settings == (
        Setting("algorithm.clip_low", None, "at least 0, at most 1"),
        Setting("algorithm.clip_high", None, "at least 0"),
        Setting("algorithm.settings.delta", 4.0, "not below 1 + clip_high"),
    )
    (length,) = next(entry for entry in entries("weights") if entry.name == "fixed_length").settings
    assert length == Setting("sampling.max_new_tokens", None, "at least 1")
    assert "rollout_T" in offered("surrogate")


def test_every_entry_names_its_source_or_says_whose_it_is():
    without = {entry.name for kind in kinds() for entry in entries(kind) if not entry.papers}
    # of Schulman's note, of other systems, or of nobody
    assert without == {"token_sum", "k1", "k2", "absolute", "k1_plus", "k3_plus", "absolute_plus", "fixed", "none"}
    for preset in presets():
        assert "arXiv" in preset.about or preset.name == "bnpo"


def test_a_preset_is_told_by_what_it_changes():
    by_name = {preset.name: preset for preset in presets()}
    assert changed(by_name["dapo"]) == {
        "weights": "token_mean",
        "clip_high": 0.28,
        "selection": "dynamic_sampling",
    }
    assert changed(by_name["grpo"]) == PRESETS["grpo"]
