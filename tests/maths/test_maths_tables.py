"""A recipe's names become functions, and what cannot be found or filled in is said clearly."""

import subprocess
import sys

import pytest

from groupwise.errors import RecipeError
from groupwise.maths.tables import Table, bind, settings_of


def scaled(values, *, factor, offset=1):
    return [value * factor + offset for value in values]


def plain(values):
    return list(values)


TOYS = Table("toy", {"scaled": scaled, "plain": plain})


def test_bind_fills_in_what_the_signature_names_and_leaves_the_rest():
    assert bind(TOYS, "scaled", {"factor": 3, "clip_low": 0.2})([1, 2]) == [4, 7]  # 1*3+1, 2*3+1
    assert bind(TOYS, "scaled", {"factor": 3, "offset": 0})([1, 2]) == [3, 6]
    assert bind(TOYS, "plain", {"factor": 3})([1, 2]) == [1, 2]


def test_a_setting_of_zero_is_a_setting():
    assert bind(TOYS, "scaled", {"factor": 0, "offset": 0})([1, 2]) == [0, 0]


def test_an_unknown_name_lists_what_there_is_and_what_was_meant():
    with pytest.raises(RecipeError) as caught:
        bind(TOYS, "scalde", {})
    assert (
        str(caught.value) == 'toy = "scalde": there is no such entry. Did you mean "scaled"? There are: plain, scaled'
    )


def test_a_name_that_resembles_nothing_gets_no_guess():
    with pytest.raises(RecipeError) as caught:
        bind(TOYS, "xyz", {})
    assert "Did you mean" not in str(caught.value) and "plain, scaled" in str(caught.value)


def test_a_missing_setting_is_named():
    with pytest.raises(RecipeError, match='toy = "scaled" needs factor, which the recipe does not set'):
        bind(TOYS, "scaled", {"offset": 2})


def test_settings_of_says_which_are_required():
    assert settings_of(scaled) == {"factor": True, "offset": False}
    assert settings_of(plain) == {}


def test_a_table_is_a_read_only_mapping_of_its_own():
    entries = {"plain": plain}
    table = Table("toy", entries)
    entries["later"] = scaled
    assert dict(table) == {"plain": plain} and len(table) == 1 and table.kind == "toy"


def test_names_can_be_listed_and_advantages_computed_without_torch():
    code = "import groupwise.maths.advantages, groupwise.maths.tables, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
