import pytest

from groupwise.errors import RewardError
from groupwise.rewards import (
    agreement,
    boxed_answer,
    correctness,
    first_answer,
    hash_answer,
    integer,
    is_right,
    last_answer,
    number,
    stated_answer,
)

GOOD = "<reasoning>\n40+2=42\n</reasoning>\n<answer>\n42\n</answer>"


# What tutorials print. Each of these is a paraphrase of a helper that is wrong, and the test shows with what.


def behind_the_closing_tag(text):
    return text.split("</answer>")[-1].split("<answer>")[0].strip()


def behind_three_hashes(text):
    return text.split("###")[1].strip().replace(".", "").replace("$", "")


def up_to_a_closing_tag_if_any(text):
    return text.split("<answer>")[-1].split("</answer>")[0].strip()


def test_the_text_behind_the_closing_tag_is_not_the_answer():
    assert behind_the_closing_tag(GOOD) == ""
    assert behind_the_closing_tag(GOOD + " hope it helps") == "hope it helps"
    assert last_answer(GOOD) == last_answer(GOOD + " hope it helps") == "42"


def test_splitting_on_three_hashes_leaves_the_fourth_and_loses_the_decimal_point():
    assert behind_three_hashes("7/2 is half of 7\n#### 3.5") == "# 35"
    assert hash_answer("7/2 is half of 7\n#### 3.5") == "3.5"
    # No well-formed answer could ever earn its reward: neither "3.5" nor "35" is "# 35".
    assert correctness([GOOD.replace("42", "3.5")], answer=["# 35"]) == [0.0]
    assert correctness([GOOD.replace("42", "3.5")], answer=["3.5"]) == [2.0]


def test_an_answer_that_was_never_closed_is_none():
    cut_off = "<reasoning>so</reasoning><answer>4"
    assert up_to_a_closing_tag_if_any(cut_off) == "4"
    assert last_answer(cut_off) is None
    assert correctness([cut_off], answer=["4"]) == [0.0]


def test_no_answer_does_not_equal_no_gold_answer():
    extracted, gold = last_answer("I give up"), None
    assert extracted == gold  # what a bare `==` rewards with 2.0
    assert correctness(["I give up"], answer=[None]) == [None]


# Extraction


@pytest.mark.parametrize(
    ("text", "last", "first"),
    [
        ("", None, None),
        ("42", None, None),
        ("<answer> 42 </answer>", "42", "42"),
        ("<answer>5</answer> no: <answer>6</answer>", "6", "5"),
        ("<answer>5</answer> no: <answer>6", None, "5"),
        ("<answer>1<answer>2</answer></answer>", "2", "2"),
        ("</answer>3<answer>", None, None),
        ("</answer><answer>3</answer>", "3", "3"),
        ("<answer></answer>", None, None),
        ("<answer> ... </answer>", None, None),
        ("<answer>a\nb</answer>", "a\nb", "a\nb"),
        ("<ANSWER>1</ANSWER>", None, None),
    ],
)
def test_answer_blocks(text, last, first):
    assert (last_answer(text), first_answer(text)) == (last, first)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("so\n#### 72", "72"),
        ("#### 1,000\nmore", "1,000"),
        ("#### 1\n#### 2", "2"),
        ("####\n5", "5"),
        ("####", None),
        ("### 5", None),
    ],
)
def test_hash_answers(text, found):
    assert hash_answer(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so \boxed{5}.", "5"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1\}}", r"\{1\}"),
        (r"\boxed{5", None),
        (r"\boxed{}", None),
        ("boxed{5}", None),
    ],
)
def test_boxed_answers(text, found):
    assert boxed_answer(text) == found


def test_a_stated_answer_is_found_by_its_mark_and_a_broken_mark_states_nothing():
    assert stated_answer(GOOD) == "42"
    assert stated_answer(r"it is \boxed{7}") == "7"
    assert stated_answer("so #### 8") == "8"
    assert stated_answer(" 9 ") == "9"
    assert stated_answer("<answer>9 ####  8") is None
    assert stated_answer("") is None


# Correctness


@pytest.mark.parametrize(
    ("found", "gold", "expected"),
    [
        ("72", "72", "exact"),
        (" 72", "72 ", "exact"),
        ("$72.00", "72", "numeric"),
        ("72 clips", "72", "numeric"),
        ("1,000", "1000", "numeric"),
        ("0.75", "3/4", "numeric"),
        ("50%", "50", "numeric"),
        ("50%", "0.5", None),
        ("7", "72", None),
        ("72 or 73", "72", None),
        ("Paris", "Paris", "exact"),
        ("paris", "Paris", None),
        ("72.0", 72, "exact"),
        ("0.5", 0.5, "exact"),
        ("1/2", 0.5, "exact"),
        ("7", float("nan"), None),
        (None, "72", None),
    ],
)
def test_agreement(found, gold, expected):
    assert agreement(found, gold) == expected


def test_correctness_gives_two_one_and_a_half_or_nothing():
    texts = [GOOD, GOOD.replace("\n42\n", "$42.00"), GOOD.replace("\n42\n", "41"), "42"]
    assert correctness(texts, answer=["42"] * 4) == [2.0, 1.5, 0.0, 0.0]
    assert correctness([[{"role": "assistant", "content": GOOD}]], answer=["42"]) == [2.0]


def test_correctness_can_be_set():
    texts = [GOOD, "<answer>42.0</answer>", "<answer>1</answer>"]
    assert correctness(texts, answer=["42"] * 3, exact=1.0, numeric=1.0, wrong=-1.0) == [1.0, 1.0, -1.0]
    assert correctness(["so 3*14 = 42"], answer=["42"], extract="last_number") == [2.0]
    assert correctness([r"\boxed{42}"], answer=["42"], extract="boxed") == [2.0]


def test_a_gold_answer_that_is_neither_text_nor_number_is_named():
    with pytest.raises(RewardError, match=r"gold answer of row 1 is a list, \['42'\]"):
        correctness([GOOD, GOOD], answer=["42", ["42"]])


def test_listing_every_number_earns_nothing():
    everything = " ".join(str(n) for n in range(1000))
    assert correctness([f"<answer>{everything}</answer>", everything], answer=["42", "42"]) == [0.0, 0.0]
    assert not is_right(everything, "42")


def test_evaluation_counts_either_spelling():
    assert is_right("#### 1,000", "1000") and is_right(GOOD, "42") and not is_right("<answer>42", "42")


def test_integer_rewards_integers_right_or_wrong():
    texts = [f"<answer>{answer}</answer>" for answer in ["42", "-5", "1,000", "4.0", "²", "two"]]
    assert integer([*texts, "42"]) == [0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0]
    assert integer(["42", "x"], score=1.0, wrong=-1.0, extract="stated") == [1.0, -1.0]


def test_a_single_number_is_read_and_several_are_not():
    assert number("The total is $1,000.") == 1000
    assert number("between 3 and 4") is None
