"""A recipe's names become functions, and what cannot be found or filled in is said clearly."""

import subprocess
import sys

import pytest

from groupwise.errors import RecipeError
from groupwise.maths.advantages import ADVANTAGES
from groupwise.maths.controls import BETA_CONTROLS, ENTROPY_CONTROLS
from groupwise.maths.corrections import CORRECTIONS
from groupwise.maths.divergences import DIVERGENCES
from groupwise.maths.filters import FILTERS
from groupwise.maths.ratios import RATIOS
from groupwise.maths.surrogates import SURROGATES
from groupwise.maths.tables import REQUIRED, Count, Pair, Positive, Table, bind, bind_function, data_of, settings_of
from groupwise.maths.weights import WEIGHTS


def scaled(values, *, factor: Positive, offset: float = 1):
    return [value * factor + offset for value in values]


def plain(values):
    return list(values)


def paired(values, others, *, ends: Pair = (0.0, 1.0), times: Count = 1, fair: bool = True):
    return [*values, *others, *ends] * times if fair else []


TOYS = Table("toy", {"scaled": scaled, "plain": plain, "paired": paired}, offers=("values", "others"))


def test_bind_fills_in_what_the_signature_names_and_leaves_the_rest():
    assert bind(TOYS, "scaled", {"factor": 3, "clip_low": 0.2})(values=[1, 2]) == [4, 7]  # 1*3+1, 2*3+1
    assert bind(TOYS, "scaled", {"factor": 3, "offset": 0})(values=[1, 2]) == [3, 6]
    assert bind(TOYS, "plain", {"factor": 3})(values=[1, 2]) == [1, 2]


def test_an_entry_takes_what_it_names_of_all_that_is_offered():
    everything = {"values": [1], "others": [2], "more": 3}
    assert bind(TOYS, "plain", {})(**everything) == [1]
    assert bind(TOYS, "paired", {})(**everything) == [1, 2, 0.0, 1.0]
    assert bind(TOYS, "paired", {}).takes("others")
    assert not bind(TOYS, "plain", {}).takes("others")


def test_a_bound_entry_knows_all_its_settings():
    assert bind(TOYS, "scaled", {"factor": 3, "clip_low": 0.2}).settings == {"factor": 3, "offset": 1}
    assert bind(TOYS, "paired", {"ends": [4.0, 5.0]}).settings == {"ends": [4.0, 5.0], "times": 1, "fair": True}


def test_an_unknown_name_lists_what_there_is_and_what_was_meant():
    with pytest.raises(RecipeError) as caught:
        bind(TOYS, "scalde", {})
    assert str(caught.value) == (
        'toy = "scalde": there is no such entry. Did you mean "scaled"? There are: paired, plain, scaled'
    )


def test_a_name_that_resembles_nothing_gets_no_guess():
    with pytest.raises(RecipeError) as caught:
        bind(TOYS, "xyz", {})
    assert "Did you mean" not in str(caught.value) and "plain, scaled" in str(caught.value)


def test_a_missing_setting_is_named():
    with pytest.raises(RecipeError, match='toy = "scaled" needs factor, which the recipe does not set'):
        bind(TOYS, "scaled", {"offset": 2})


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("scaled", {"factor": 0}, 'toy = "scaled": factor = 0: needs a number, above 0'),
        ("scaled", {"factor": "3"}, "factor = '3': needs a number, above 0"),
        ("scaled", {"factor": True}, "factor = True: needs a number"),
        ("scaled", {"factor": float("nan")}, "factor = nan: needs a number"),
        ("scaled", {"factor": 1, "offset": None}, "offset = None: needs a number"),
        ("paired", {"times": 1.5}, "times = 1.5: needs a whole number, at least 1"),
        ("paired", {"times": 0}, "times = 0: needs a whole number, at least 1"),
        ("paired", {"ends": [1.0]}, r"ends = \[1.0\]: needs a list of two numbers"),
        ("paired", {"ends": 1.0}, "ends = 1.0: needs a list of two numbers"),
        ("paired", {"ends": [1.0, "x"]}, "needs a list of two numbers"),
        ("paired", {"fair": 1}, "fair = 1: needs true or false"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_said_before_any_work(name, settings, words):
    with pytest.raises(RecipeError, match=words):
        bind(TOYS, name, settings)


def test_a_function_of_ones_own_is_bound_like_the_others():
    def mine(others, *, power=2):
        return [value**power for value in others]

    assert bind_function(TOYS, "me.py:mine", mine, {"power": 3})(values=[9], others=[2]) == [8]

    def greedy(values, wishes):
        return values

    with pytest.raises(RecipeError) as caught:
        bind_function(TOYS, "me.py:greedy", greedy, {})
    assert str(caught.value) == (
        'toy = "me.py:greedy" asks for wishes, which there is not. Its positional parameters can be: values, others. '
        "A setting stands behind a * in the signature"
    )


def test_a_signature_tells_data_from_settings():
    assert data_of(paired) == ("values", "others")
    assert settings_of(scaled) == {"factor": REQUIRED, "offset": 1}
    assert settings_of(plain) == {}


def test_a_table_is_a_read_only_mapping_of_its_own():
    entries = {"plain": plain}
    table = Table("toy", entries)
    entries["later"] = scaled
    assert dict(table) == {"plain": plain} and len(table) == 1 and table.kind == "toy"


TABLES = [ADVANTAGES, RATIOS, SURROGATES, WEIGHTS, DIVERGENCES, CORRECTIONS, FILTERS, BETA_CONTROLS, ENTROPY_CONTROLS]


@pytest.mark.parametrize(("table", "name"), [(table, name) for table in TABLES for name in table])
def test_every_entry_asks_for_what_there_is_and_has_settings_within_its_own_bounds(table, name):
    wanted = settings_of(table[name])
    required = {setting for setting, default in wanted.items() if default is REQUIRED}
    assert required <= {"clip_low", "clip_high", "max_new_tokens", "kl_target"}
    given = {"clip_low": 0.2, "clip_high": 0.2, "max_new_tokens": 9, "kl_target": 0.1}
    defaults = {setting: default for setting, default in wanted.items() if default is not REQUIRED}
    assert bind(table, name, {**given, **defaults}).settings == {**{k: given[k] for k in required}, **defaults}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.kind)
def test_every_entry_says_what_it_does_and_gives_an_example(table):
    for name, function in table.items():
        assert function.__doc__, name
        assert name in ("fixed",) or "Example: " in function.__doc__, name


def test_a_setting_means_the_same_wherever_it_stands():
    """One name in `algorithm.settings` may reach several entries: then they agree on what it is."""
    kinds = {}
    for table in TABLES:
        for function in table.values():
            for setting in settings_of(function):
                kinds.setdefault(setting, set()).add(table.kind)
    assert {setting: found for setting, found in kinds.items() if len(found) > 1} == {}


def test_names_can_be_listed_and_advantages_computed_without_torch():
    code = "import groupwise.maths.advantages, groupwise.maths.tables, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
