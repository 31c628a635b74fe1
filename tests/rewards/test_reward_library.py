"""The library of rewards, with numbers worked out by hand."""

import math
import random

import pytest

from groupwise.errors import RewardError
from groupwise.rewards import Wrong, as_reward
from groupwise.rewards import patterns as patterns_module
from groupwise.rewards.choices import choice, chosen_letter
from groupwise.rewards.habits import boxed, language_share, repetition, tag_order, think_format
from groupwise.rewards.lengths import cosine_length, soft_overlong
from groupwise.rewards.patterns import json_schema, regex


def test_cosine_length():
    right, wrong = "<answer>5</answer>", "<answer>6</answer>"
    ids = [[1] * n for n in (0, 500, 1000, 5000, 0, 500, 1000, 7)]
    texts = [right] * 4 + [wrong] * 3 + [right]
    rewards = cosine_length(texts, ids, ["5"] * 7 + [None])
    assert rewards[:7] == pytest.approx([1.0, 0.75, 0.5, 0.5, -1.0, -0.75, -0.5]) and rewards[7] is None
    assert cosine_length([right], [[]], ["5"], longest=36, unit="characters") == pytest.approx([0.75])
    with pytest.raises(RewardError, match="at least 2 items"):
        as_reward(cosine_length, settings={"right": [1.0]})


def test_soft_overlong():
    lengths = [0, 384, 385, 448, 512, 9999]
    assert soft_overlong([[1] * n for n in lengths]) == pytest.approx([0, 0, -1 / 128, -0.5, -1, -1])
    assert soft_overlong([[1] * 5, [1] * 6], longest=5, margin=1, penalty=2.0) == [-2.0, -2.0]


def test_repetition():
    assert repetition(["a b a b"], n=2) == pytest.approx([-1 / 3])
    assert repetition(["A a a a a"], n=3, penalty=-0.5) == pytest.approx([-0.5 * 2 / 3])
    assert repetition(["one two", "", "all words differ here"]) == [0.0, 0.0, 0.0]


def test_think_format_is_trl_s():
    texts = ["<think>a</think>b", "<think>a", " <think>a</think>", "<think><think></think>", "<think>\n</think>\n", ""]
    assert think_format(texts) == [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def test_think_format_agrees_with_trl():
    theirs = pytest.importorskip("trl.rewards").think_format_reward
    texts = ["<think>a</think>b", "<think>a", "x<think>a</think>", "<think></think><think>", "<think>a\n</think>\nb"]
    assert think_format(texts) == theirs([[{"role": "assistant", "content": text}] for text in texts])


def test_lengths_and_repetition_agree_with_trl():
    theirs = pytest.importorskip("trl.rewards")
    ids = [[random.Random(n).randrange(4) for _ in range(n)] for n in (0, 2, 3, 9, 14, 15, 16, 20, 24, 25, 40)]
    ours = soft_overlong(ids, longest=20, margin=5)
    assert ours == pytest.approx(theirs.get_soft_overlong_punishment(20, 5)(ids))
    assert any(-1 < reward < 0 for reward in ours)
    ours = repetition([""] * len(ids), ids, n=2, penalty=-0.7, unit="tokens")
    assert ours == pytest.approx(theirs.get_repetition_penalty_reward(2, -0.7)(ids)) and min(ours) < -0.3
    texts, gold = [r"\boxed{5}", r"\boxed{7}"] * len(ids), ["5"] * 2 * len(ids)
    twice = [each for each in ids for _ in range(2)]
    cosine = theirs.get_cosine_scaled_reward(max_len=20)
    assert cosine_length(texts, twice, gold, longest=20) == pytest.approx(
        cosine([[{"content": text}] for text in texts], solution=gold, completion_ids=twice)
    )


def test_boxed_and_tag_order():
    assert boxed([r"\boxed{5}", r"\boxed{", r"\boxed{}", "5"]) == [1.0, 0.0, 0.0, 0.0]
    texts = [
        "<reasoning> </reasoning> <answer> </answer>",
        "<reasoning> </reasoning> <answer>",
        "<answer> </answer>",
        "<answer> </answer> <reasoning> </reasoning>",
    ]
    assert tag_order(texts) == [1.0, 0.75, 0.0, 0.5]
    assert tag_order(["<think></think>"], tags=["think"], score=2.0) == [2.0]


def test_language_share():
    assert language_share(["so 所以", "123 !?", "straße", "да"]) == [0.5, 0.0, 1.0, 0.0]
    assert language_share(["所以 ok"], script="han", score=2.0) == [1.0]
    assert language_share(["ひらがな漢字"], script="japanese") == [1.0]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(c)", "C"),
        ("<answer>B</answer>", "B"),
        ("<answer>B) because A is wrong</answer>", None),
        ("<answer>A or B</answer>", None),
        (r"\boxed{\text{C}}", "C"),
        ("The answer is (B).", "B"),
        ("A is tempting. Answer: **C**", "C"),
        ("the answer is a good question. Answer: D", "D"),
        ("A B C D", None),
        ("I think so", None),
        ("", None),
        ("<answer>E</answer>", None),
    ],
)
def test_the_letter_that_is_chosen(text, letter):
    assert chosen_letter(text) == letter


def test_choice_takes_letters_and_numbers():
    assert choice(["<answer>B</answer>"] * 4, ["B", "b", 1, None]) == [1.0, 1.0, 1.0, None]
    assert choice(["<answer>B</answer>"] * 2, ["A", 0], wrong=-1.0) == [-1.0, -1.0]


REDOS = "a" * 40 + "!"


@pytest.fixture(autouse=True)
def short_deadline(monkeypatch):
    monkeypatch.setattr(patterns_module, "_SECONDS", 0.3)
    patterns_module._checkers.clear()
    yield
    for checker in patterns_module._checkers.values():
        checker.close()
    patterns_module._checkers.clear()


@pytest.mark.parametrize("linear", [True, False])
def test_patterns_with_and_without_re2(monkeypatch, linear):
    patterns_module._linear.cache_clear()
    if linear:
        pytest.importorskip("re2")
    else:
        monkeypatch.setattr(patterns_module, "_linear", lambda pattern: None)
    assert regex(["in 1984", "x", "\ud800 1984"], pattern=r"\d{4}") == [1.0, 0.0, 1.0]
    assert regex(["in 1984", "1984", "1984\n"], pattern=r"\d{4}", whole=True, wrong=-1.0) == [-1.0, 1.0, -1.0]
    hopeless = regex([REDOS, "aa"], pattern="(a+)+$", wrong=-1.0)
    assert hopeless == [-1.0 if linear else Wrong("took more than 0.3 s of CPU time", -1.0), 1.0]


def test_a_pattern_that_is_none_is_the_users_mistake():
    with pytest.raises(RewardError, match=r"pattern = '\(' is no regular expression"):
        regex(["x"], pattern="(")


def test_a_pattern_that_re2_does_not_know_still_works():
    assert regex(["abab", "abba"], pattern=r"(ab)\1") == [1.0, 0.0]


def test_json_schemas():
    pytest.importorskip("jsonschema")
    schema = {"type": "object", "required": ["name"], "properties": {"name": {"pattern": "^(a+)+$"}}}
    bomb = "[" * 100_000
    texts = ['{"name": "aaa"}', '{"name": 5}', "{}", "not json", bomb, "9" * 10_000, '{"name": "' + REDOS + '"}']
    marks = json_schema(texts, schema=schema)
    assert marks[:4] == [1.0, 1.0, 0.0, 0.0]  # a pattern says nothing about what is no text
    assert marks[4:6] == [0.0, 0.0]
    assert marks[6] == Wrong("took more than 0.3 s of CPU time", 0.0)
    assert json_schema(["5", "{"]) == [1.0, 0.0]
    assert json_schema(['so\n```json\n{"a": 1}\n```\nyes'], where="fence") == [1.0]
    assert json_schema(["<answer>[1]</answer>", "[1]"], where="answer") == [1.0, 0.0]
    with pytest.raises(RewardError, match="no JSON schema"):
        json_schema(["5"], schema={"type": "nonsense"})


def test_cosine_formula_against_its_definition():
    for length in (0, 123, 999):
        expected = 0.5 + 0.25 * (1 + math.cos(math.pi * length / 1000))
        assert cosine_length(["5"], [[1] * length], ["5"]) == pytest.approx([expected])
