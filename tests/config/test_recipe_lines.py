"""The scanner that finds the line of every name, against texts numbered by hand and texts that we write ourselves."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groupwise.config.toml_lines import line_numbers, read_key
from groupwise.config.toml_text import toml_key, toml_value

TEXT = '''# a comment with = and [brackets]
seed = 1 # = 2

[model]
id = "a # no comment"   # a comment
'dotted'."key" . inside = """
[not.a.table]
no = "key" \\""" still text """""

[[rewards]]
function = 'C:\\'
settings = { target = 5, "a.b" = [1,
  2], deep = {x = 1} }
[rewards.more]
y = 1979-05-27 07:32:00
[[rewards]]
  function = \'\'\'
it's
\'\'\'
list = [
  "a", # one ]
  # two
  {k = 1}, ]
[rewards.more]
y = 2
[a.b]
[a]
c = -inf
'''

LINES = {
    ("seed",): 2,
    ("model",): 4,
    ("model", "id"): 5,
    ("model", "dotted"): 6,
    ("model", "dotted", "key"): 6,
    ("model", "dotted", "key", "inside"): 6,
    ("rewards",): 10,
    ("rewards", 0): 10,
    ("rewards", 0, "function"): 11,
    ("rewards", 0, "settings"): 12,
    ("rewards", 0, "settings", "target"): 12,
    ("rewards", 0, "settings", "a.b"): 12,
    ("rewards", 0, "settings", "a.b", 0): 12,
    ("rewards", 0, "settings", "a.b", 1): 13,
    ("rewards", 0, "settings", "deep"): 13,
    ("rewards", 0, "settings", "deep", "x"): 13,
    ("rewards", 0, "more"): 14,
    ("rewards", 0, "more", "y"): 15,
    ("rewards", 1): 16,
    ("rewards", 1, "function"): 17,
    ("rewards", 1, "list"): 20,
    ("rewards", 1, "list", 0): 21,
    ("rewards", 1, "list", 1): 23,
    ("rewards", 1, "list", 1, "k"): 23,
    ("rewards", 1, "more"): 24,
    ("rewards", 1, "more", "y"): 25,
    ("a",): 26,
    ("a", "b"): 26,
    ("a", "c"): 28,
}


def test_every_name_of_a_hard_text():
    tomllib.loads(TEXT)
    assert line_numbers(TEXT) == LINES


def test_texts_without_names():
    assert line_numbers("") == {}
    assert line_numbers("# nothing\n\n  \t") == {}


def test_read_key_stops_at_the_equals_sign():
    assert read_key('task.columns."a=b" = 1') == (("task", "columns", "a=b"), 19)
    assert read_key("a-b.0=x") == (("a-b", "0"), 5)


@pytest.mark.parametrize("text", ["", "=1", "a..b=1", "a.=1", ".a=1", "é=1"])
def test_read_key_refuses_what_is_no_key(text):
    with pytest.raises(ValueError, match="no TOML at character"):
        read_key(text)


moments = (st.datetimes() | st.times()).map(lambda moment: moment.replace(fold=0))
scalars = st.one_of(st.booleans(), st.integers(), st.floats(), st.text(), st.dates(), moments)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(st.text(), values, max_size=5))
def test_each_line_holds_the_key_it_is_said_to_hold(tree):
    text = "".join(f"{toml_key(key)} = {toml_value(value)}\n" for key, value in tree.items())
    lines = line_numbers(text)
    assert [lines[(key,)] for key in tree] == list(range(1, len(tree) + 1))


@given(values)
def test_toml_value_loads_to_the_same_value(value):
    loaded = tomllib.loads(f"value = {toml_value(value)}")["value"]
    assert repr(loaded) == repr(value)  # repr, so that nan is nan and 1 is not 1.0
