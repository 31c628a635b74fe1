"""What a recipe says of its algorithm is checked before any work, with words that say what to do."""

import math
from dataclasses import replace

import pytest
from toy_learner import algorithm_of
from toy_tabular import groups_of

from groupwise.config.presets import PRESETS
from groupwise.config.sections import AlgorithmSection
from groupwise.errors import RecipeError
from groupwise.learner.algorithm import TABLES, Algorithm
from groupwise.learner.probe import check, is_silent
from groupwise.maths.tables import bind


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_an_algorithm(preset):
    algorithm = algorithm_of(preset)
    assert algorithm.surrogate.name == PRESETS[preset]["surrogate"]
    assert algorithm.section.beta == 0


GIVEN = {"clip_low": 0.2, "clip_high": 0.2, "max_new_tokens": 9, "kl_target": 0.1}


@pytest.mark.parametrize(("table", "name"), [(table, name) for table in TABLES for name in table])
def test_every_entry_passes_the_check_that_users_functions_have_to_pass(table, name):
    check(bind(table, name, GIVEN))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"surrogate": "sappo"}, 'surrogate = "sappo": there is no such entry. Did you mean "sapo"?'),
        ({"ratio": "tokens"}, 'ratio = "tokens": there is no such entry. Did you mean "token"?'),
        ({"correction": "tis"}, 'correction = "tis": there is no such entry'),
        ({"filters": ["top_entropie"]}, 'filter = "top_entropie": there is no such entry. Did you mean "top_entropy"?'),
        ({"beta_control": "proportional"}, 'beta_control = "proportional" needs kl_target'),
        ({"settings": {"delta": 3.0}}, r"algorithm.settings.delta: changes nothing: .*\(two_sided would\)"),
        ({"settings": {"dleta": 3.0}}, "algorithm.settings.dleta: there is no such setting. `groupwise algorithms`"),
        (
            {"surrogate": "two_sided", "settings": {"delta": -1}},
            r'surrogate = "two_sided": delta = -1: needs to be not below 1 \+ clip_high, which is 1.2',
        ),
        ({"settings": {"clip_low": 0.1}}, "algorithm.settings.clip_low: is a setting of its own"),
        ({"settings": {"max_new_tokens": 9}}, "algorithm.settings.max_new_tokens: is a setting of its own"),
        (
            {"surrogate": "sapo", "clip_high": 0.5},
            r"algorithm.clip_high: changes nothing: none of the chosen entries takes it \(clipped_ratio, .*\). Drop",
        ),
        (
            {"surrogate": "vespo", "correction": "sequence_mask"},
            'correction = "sequence_mask" weighs whole completions, and surrogate = "vespo"',
        ),
        (
            {"advantage": "gdpo", "beta": 0.1, "kl_in": "reward"},
            'advantage = "gdpo" looks at the reward functions one by one, and the KL is none of them',
        ),
        ({"surrogate": "dual_clip", "settings": {"dual": 1.1}}, r"dual = 1.1: needs to be not below 1 \+ clip_high"),
        ({"surrogate": "two_sided", "clip_high": 5.0}, r"delta = 4.0: .* which is 6"),  # the default contradicts, too
        ({"surrogate": "clip_cov", "settings": {"cov_low": 9.0}}, "cov_high = 5.0: needs to be not below cov_low"),
        ({"surrogate": "sapo", "settings": {"tau_pos": math.inf}}, r"tau_pos = inf, .* gave \[nan, .* is not finite"),
        ({"surrogate": "vespo", "settings": {"k_lambda_pos": [1.0, -1.0]}}, "needs a list of two numbers, at least 0"),
        (
            {"surrogate": "vespo", "ratio": "product"},
            "makes one ratio of a completion's tokens itself. Set ratio = \"t",
        ),
        ({"surrogate": "gmpo", "ratio": "sequence"}, "makes one ratio of a completion's tokens itself"),
        ({"surrogate": "reinforce", "ratio": "sequence"}, 'ratio = "sequence" changes nothing: .* has no ratio. Drop'),
        ({"selection": "in_band", "settings": {"band": [0.8, 0.2]}}, "needs a list of two numbers, rising"),
        ({"selection": "most_varied", "settings": {"oversample": math.inf}}, "at least 1, at most 100"),
        ({"correction": "token_mask", "settings": {"correction_low": 3.0}}, "correction_low = 3.0: .* at most 1"),
        ({"filters": ["worst_token_rejection"], "settings": {"worst_ratio": 0.5}}, "worst_ratio = 0.5: .* at least 1"),
        ({"filters": ["top_entropy"] * 2}, 'filters: "top_entropy" is named 2 times'),
        ({"anchor": "sampler", "correction": "token_mask"}, 'correction: "token_mask" looks at old policy / sampler'),
        ({"anchor": "sampler", "filters": ["k3_rejection"]}, 'filters: "k3_rejection" looks at old policy / sampler'),
        (
            {"entropy_control": "stepped", "settings": {"entropy_min": 0.5, "entropy_max": 0.1}},
            "entropy_max = 0.1: needs to be not below entropy_min, which is 0.5",
        ),
        (
            {"length_penalty": "soft_overlong", "settings": {"overlong_penalty": 0.0}},
            "overlong_penalty = 0.0: needs a number, above 0",
        ),
    ],
)
def test_mistakes_are_said(settings, words):
    with pytest.raises(RecipeError, match=words):
        algorithm_of(**settings)


def test_the_best_of_k_needs_more_than_k_in_a_group():
    section = AlgorithmSection(**{**PRESETS["pass_at_k"]})
    assert Algorithm.of(section, 9, group_size=5).advantage.settings == {"k": 4}
    with pytest.raises(RecipeError, match=r'advantage = "pass_at_k": k = 4: needs to be below group_size, which is 4'):
        Algorithm.of(section, 9, group_size=4)


def test_a_setting_of_another_entry_at_its_default_is_not_a_mistake():
    """A recipe that was written out whole and is run with another surrogate for once."""
    assert algorithm_of(settings={"delta": 4.0, "k_lambda_pos": [2.0, 3.0]}).surrogate.name == "clipped_ratio"


def test_all_settings_of_the_chosen_entries_are_known():
    algorithm = algorithm_of(
        surrogate="vespo", correction="token_mask", filters=["top_entropy"], settings={"top_share": 0.5}
    )
    assert algorithm.settings == {
        "k_lambda_pos": [2.0, 3.0],
        "k_lambda_neg": [3.0, 2.0],
        "correction_low": 0.5,
        "correction_high": 5.0,
        "top_share": 0.5,
    }
    # and a recipe that has them all is the same algorithm
    again = algorithm_of(
        surrogate="vespo", correction="token_mask", filters=["top_entropy"], settings=algorithm.settings
    )
    assert again.settings == algorithm.settings


def test_settings_reach_their_entries():
    algorithm = algorithm_of(advantage="pass_at_k", settings={"k": 2})
    groups = groups_of([[1] * 4], [[1.0, 0.0, 0.0, 0.0]])
    assert algorithm.advantages(groups)[0] == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3], abs=1e-3)


def test_advantages_are_given_lengths_and_parts():
    groups = groups_of([[1, 3]], [[{"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 10.0}]])
    assert algorithm_of(advantage="optimal_baseline").advantages(groups)[0] == pytest.approx([-6.75, 2.25])
    # GDPO: a and b are normalised to almost the same size, so together they are nothing beside a alone
    both = algorithm_of(advantage="gdpo").advantages(groups)[0]
    (alone, _) = replace(algorithm_of(advantage="gdpo"), reward_weights={"a": 1.0, "b": 0.0}).advantages(groups)[0]
    assert alone == pytest.approx(0.7071, abs=1e-3)
    assert abs(both[0]) < 0.6 * alone


def test_penalties_are_taken_off_the_rewards_that_are_compared():
    groups = groups_of([[1, 1, 1]], [[1.0, 0.0, None]])
    algorithm = algorithm_of(advantage="group_centred")
    assert algorithm.advantages(groups, [[0.5, -0.5, 7.0]]) == [[0.0, 0.0, 0.0]]
    assert groups[0].rewards_G == [1.0, 0.0, None]


@pytest.mark.parametrize("name", TABLES[2])
def test_who_has_a_loss_without_an_advantage_is_known(name):
    assert is_silent(bind(TABLES[2], name, GIVEN)) == (name not in ("dro", "clip_cov", "kl_cov"))


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({}, False),
        ({"surrogate": "dro"}, True),
        ({"surrogate": "kl_cov"}, True),
        ({"filters": ["top_entropy"]}, True),
        ({"filters": ["off_policy_mask"]}, False),
        ({"entropy": 0.1}, True),
        ({"entropy_control": "stepped"}, True),
    ],
)
def test_what_is_silent_is_computed_only_where_it_counts(settings, needed):
    assert algorithm_of(**settings).needs_silent is needed


# --- functions of the user's own -------------------------------------------------------------------------------------

OWN = """
import torch

def tempered(log_ratio_T, advantages_T, *, power: float = 0.5):
    return -advantages_T * (power * log_ratio_T).exp() / power

def ranked(rewards_QG):
    return [[float(sum(o < r for o in g if o is not None)) if r is not None else 0.0 for r in g] for g in rewards_QG]

def squared(lengths_R):
    return 1.0 / lengths_R.double().clamp(min=1) ** 2

def deaf(advantages_T):
    return -advantages_T

def mean(log_ratio_T, advantages_T):
    return -(log_ratio_T * advantages_T).mean()

def broken(log_ratio_T, advantages_T):
    return -advantages_T * log_ratio_T.sqrt()

def stumbles(log_ratio_T):
    return log_ratio_T.nonsense()

def wishful(log_ratio_T, critic_T):
    return log_ratio_T

def ungraded(rewards_QG):
    return [[r for r in g] for g in rewards_QG]

def one_short(rewards_QG):
    return [[0.0 for r in g[1:]] for g in rewards_QG]

def greedy(rewards_QG, wanted, rounds):
    return ([0, 2], 0 if rounds else wanted)

def in_place(log_ratio_T, advantages_T):
    return -advantages_T.mul_(2) * log_ratio_T.exp()

def exits(log_ratio_T):
    raise SystemExit(3)

def behind(*, log_ratio_T, advantages_T):
    return -advantages_T * log_ratio_T.exp()

def blind(log_ratio_T):
    return log_ratio_T.detach()

def negative(lengths_R):
    return -1.0 / lengths_R

def filled(rewards_QG):
    for group in rewards_QG:
        group[:] = [reward or 0.0 for reward in group]
    return [[0.5] * len(group) for group in rewards_QG]

def shares(rewards_QG):
    return [[(r or 0.0) / sum(x or 0.0 for x in group) for r in group] for group in rewards_QG]

def hinted(log_ratio_T: "Tensor", advantages_T: "Tensor", *, power: "Half" = 0.5):
    return -advantages_T * (power * log_ratio_T).exp()

def repeats(rewards_QG):
    return ([0, 0], 0)

def strangers(rewards_QG):
    return ([99], 0)

def undecided(rewards_QG):
    return [0, 1]

def flat_fee(lengths_QG):
    return [[0.25 if length > 4 else 0.0 for length in lengths_G] for lengths_G in lengths_QG]

CONSTANT = 3
"""


def own(tmp_path, **settings):
    (tmp_path / "mine.py").write_text(OWN, encoding="utf-8")
    return Algorithm.of(AlgorithmSection(**{**PRESETS["grpo"], **settings}), 9, tmp_path)


def test_a_surrogate_of_ones_own(tmp_path):
    algorithm = own(tmp_path, surrogate="mine.py:tempered", settings={"power": 2.0})
    assert algorithm.surrogate.settings == algorithm.settings == {"power": 2.0}
    assert own(tmp_path, surrogate="mine.py:tempered").settings == {"power": 0.5}
    assert is_silent(algorithm.surrogate)


def test_annotations_that_nobody_can_look_up_are_no_mistake(tmp_path):
    assert own(tmp_path, surrogate="mine.py:hinted").surrogate.settings == {"power": 0.5}


def test_an_advantage_of_ones_own(tmp_path):
    algorithm = own(tmp_path, advantage="mine.py:ranked")
    assert algorithm.advantages(groups_of([[1] * 4], [[0.5, 3.0, None, 0.7]])) == [[0.0, 2.0, 0.0, 1.0]]


def test_weights_of_ones_own_and_a_module(tmp_path):
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "losses.py").write_text(OWN, encoding="utf-8")
    algorithm = Algorithm.of(
        AlgorithmSection(**{**PRESETS["grpo"], "weights": "my_package.losses:squared"}), 9, tmp_path
    )
    assert algorithm.weights.name == "my_package.losses:squared"


def test_a_selection_and_a_length_penalty_of_ones_own(tmp_path):
    algorithm = own(tmp_path, selection="mine.py:greedy", length_penalty="mine.py:flat_fee", advantage="group_centred")
    assert algorithm.selection(rewards_QG=[], wanted=3, rounds=0) == ([0, 2], 3)
    # rewards 1 and 0, the first of them long: 0.75 and 0, the mean 0.375
    assert algorithm.advantages(groups_of([[5, 4]], [[1.0, 0.0]])) == [[0.375, -0.375]]
    # and the KL on top of it: 0.5 and 0
    assert algorithm.advantages(groups_of([[5, 4]], [[1.0, 0.0]]), [[0.25, 0.0]]) == [[0.25, -0.25]]


def test_what_takes_reward_functions_one_by_one_has_no_place_for_a_length_penalty(tmp_path):
    with pytest.raises(RecipeError, match=r'length_penalty = "soft_overlong": advantage = "gdpo" looks at the reward'):
        own(tmp_path, advantage="gdpo", length_penalty="soft_overlong")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"selection": "mine.py:undecided"}, r"gave \[0, 1\], which is not Choice\(kept, further\)"),
        ({"selection": "mine.py:repeats"}, r"keeps \[0, 0\], which are not different places of 5 groups"),
        ({"selection": "mine.py:strangers"}, r"keeps \[99\], which are not different places"),
        ({"surrogate": "mine.py:in_place"}, "changes advantages_T, which others look at after it"),
        ({"surrogate": "mine.py:exits"}, r"raised SystemExit: 3 at .*mine.py:\d+, in exits"),
        ({"surrogate": "mine.py:behind"}, r"has log_ratio_T and advantages_T behind the \* of its signature"),
        ({"surrogate": "mine.py:"}, 'name a function as "file.py:function"'),
        ({"ratio": "mine.py:blind"}, "gave a ratio without gradient"),
        ({"divergence": "mine.py:nothing"}, "mine.py has no function 'nothing'"),
        ({"weights": "mine.py:negative"}, "none may be negative, and not all of them 0"),
        ({"advantage": "mine.py:filled"}, "changes rewards_QG, which others look at after it"),
        ({"advantage": "mine.py:shares"}, r"raised ZeroDivisionError: .* at .*mine.py:\d+, in"),
        ({"length_penalty": "mine.py:one_short"}, "which is not one number for each reward"),
        ({"surrogate": "mine.py:deaf"}, "gave a loss without gradient: it must depend on log_ratio_T or logprobs_T"),
        ({"surrogate": "mine.py:mean"}, r"gave \[\] where a tensor of shape \[6\] is needed"),
        ({"surrogate": "mine.py:broken"}, "which is not finite, on a small batch before the run"),
        ({"surrogate": "mine.py:stumbles"}, r"raised AttributeError: .*nonsense.* at .*mine.py:\d+, in stumbles"),
        ({"surrogate": "mine.py:wishful"}, 'surrogate = "mine.py:wishful" asks for critic_T, which there is not'),
        ({"advantage": "mine.py:ungraded"}, "all are plain finite floats, also where a reward is None"),
        ({"advantage": "mine.py:one_short"}, "which is not one number for each reward"),
        ({"advantage": "mine.py:rankd"}, "mine.py has no function 'rankd'. It has: tempered, ranked"),
        ({"advantage": "mine.py:CONSTANT"}, "mine.py has no function 'CONSTANT'"),
        ({"surrogate": "yours.py:tempered"}, "there is no file .*yours.py: paths start at the recipe"),
        ({"surrogate": "no_such_package:f"}, "loading no_such_package raised ModuleNotFoundError"),
        ({"surrogate": "mine.py:tempered", "settings": {"power": "x"}}, "power = 'x': needs a number"),
        (
            {"surrogate": "mine.py:tempered", "settings": {"force": 1.0}},
            "algorithm.settings.force: there is no such setting",
        ),
    ],
)
def test_what_cannot_work_is_said_before_the_run(tmp_path, settings, words):
    with pytest.raises(RecipeError, match=words):
        own(tmp_path, **settings)


def test_a_file_that_does_not_load_shows_its_line(tmp_path):
    (tmp_path / "bad.py").write_text("x = 1\ny = x / 0\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r'"bad.py:f": loading bad.py raised ZeroDivisionError: .* at .*bad.py:2'):
        own(tmp_path, surrogate="bad.py:f")
