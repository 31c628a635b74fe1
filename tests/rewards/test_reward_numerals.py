from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groupwise.rewards import last_number, number
from groupwise.rewards.numerals import is_integer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("72", 72),
        ("72 clips.", 72),
        ("$1,234.50", Fraction(2469, 2)),
        ("\\$72", 72),
        ("€ 5", 5),
        ("-3/4", Fraction(-3, 4)),
        ("3 / 4", Fraction(3, 4)),
        ("-\\dfrac{3}{4}", Fraction(-3, 4)),
        ("\\frac{1}{2}", Fraction(1, 2)),
        ("50%", 50),
        ("\u22125", -5),  # the minus sign of typography
        ("-$5", -5),
        ("$-5", -5),
        ("+5", 5),
        (".5", Fraction(1, 2)),
        ("3.", 3),
        ("...5", 5),
        ("1e3", 1000),
        ("2.5E-1", Fraction(1, 4)),
        ("1,000,000", 1_000_000),
        ("10\u00a0000", 10_000),
        ("10'000", 10_000),
        ("１２", 12),  # full-width digits, as Chinese models write them
        ("= 12", 12),
        ("(5)", 5),
        ("(-5)", -5),
        ("covid-19", 19),
        ("7\x00", 7),
        ("\ud800 7", 7),
        ("0.1", Fraction(1, 10)),
    ],
)
def test_a_text_with_one_number_states_it(text, value):
    assert number(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "none", "3, 4 or 5", "3 * 4 = 12", "3-5", "1,23", "1,00,000", "10 000", "1.2.3", "12/25/2020", "3/0", "²"],
)
def test_a_text_with_no_number_or_several_states_none(text):
    assert number(text) is None


def test_a_number_that_python_would_refuse_to_convert_counts_as_none():
    assert number("1" * 400) == int("1" * 400)
    assert number("1" * 401) is None
    assert number("1" * 200_000) is None


@given(st.decimals(-(10**12), 10**12, places=3), st.booleans(), st.sampled_from(["", "$", "€"]))
def test_every_spelling_of_a_decimal_is_the_same_number(value, separators, currency):
    size = f"{abs(value):,}" if separators else f"{abs(value)}"
    sign = "-" if value < 0 else ""
    assert number(f"It is {sign}{currency}{size}.") == number(f"{currency}{sign}{size} units") == Fraction(value)


def test_the_last_number_is_given_as_it_is_written():
    assert last_number("3 * 4 = 12 clips") == "12"
    assert last_number("from $5 to $1,200.50.") == "$1,200.50"
    assert last_number("3-5") == "5" and last_number("3 -5") == "-5"
    assert last_number("no digits") is None


def test_integers_are_those_that_are_integers_and_nothing_else():
    assert all(is_integer(text) for text in ["5", "-5", " 12 ", "1,000", "\u22127", "9" * 5000])
    assert not any(is_integer(text) for text in ["", "3.0", "5 km", "²", "1,00", "--5", "5-", "one"])
