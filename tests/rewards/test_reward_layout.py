import pytest

from groupwise.rewards import length, reached_end, soft_format, strict_format, tag_count, tags_present

LINES = "<reasoning>\nbecause\n</reasoning>\n<answer>\n5\n</answer>"
COMPACT = "<reasoning>because</reasoning><answer>5</answer>"


@pytest.mark.parametrize(
    ("text", "with_lines", "without"),
    [
        (LINES, 0.5, 0.5),
        (f"\n{LINES}\n", 0.5, 0.5),
        (LINES.replace("</reasoning>\n", "</reasoning>\n\n"), 0.5, 0.5),
        (COMPACT, 0.0, 0.5),
        (LINES.replace("</reasoning>\n", "</reasoning> "), 0.0, 0.5),
        (f"Well: {LINES}", 0.0, 0.0),
        (f"{LINES} bye", 0.0, 0.0),
        (LINES.replace("</reasoning>\n", "</reasoning>\nso\n"), 0.0, 0.0),
        (f"{LINES}\n{LINES}", 0.0, 0.0),
        (LINES.replace("5", ""), 0.0, 0.0),
        ("<answer>\n5\n</answer>\n<reasoning>\nb\n</reasoning>", 0.0, 0.0),
        ("<reasoning>\n<answer>\n</reasoning>\n5\n</answer>", 0.0, 0.0),
        ("</reasoning>\nb\n<reasoning>\n<answer>\n5\n</answer>", 0.0, 0.0),
        (LINES.removesuffix("</answer>"), 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_strict_format(text, with_lines, without):
    assert strict_format([text]) == [with_lines]
    assert strict_format([text], lines=False) == [without]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LINES, 0.5),
        (COMPACT, 0.5),
        (f"Well: {COMPACT} bye {COMPACT}", 0.5),
        ("<answer>5</answer><reasoning>b</reasoning>", 0.0),
        ("<reasoning>b</reasoning><answer>5", 0.0),
        ("<reasoning>b<answer>5</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_soft_format(text, expected):
    assert soft_format([text]) == [expected]


def test_tag_count_wants_every_tag_exactly_once():
    texts = [LINES, COMPACT + "<answer>", COMPACT * 2, "<answer>5</answer>", "</answer>", ""]
    assert tag_count(texts) == [0.5, 0.375, 0.0, 0.25, 0.125, 0.0]


def test_tags_present_wants_every_tag_at_all():
    texts = [LINES, COMPACT * 2, "<answer>5", ""]
    assert tags_present(texts) == pytest.approx([0.8, 0.8, 0.2, 0.0])
    assert tags_present(texts, score=0.05) == pytest.approx([0.2, 0.2, 0.05, 0.0])


def test_other_tags_and_scores():
    text = "<think>\nb\n</think>\n<answer>\n5\n</answer>"
    tags = ["think", "answer"]
    assert strict_format([text], tags=tags, score=1.0) == soft_format([text], tags=tags, score=1.0) == [1.0]
    assert tag_count([text], tags=tags, score=0.25) == [1.0]
    assert strict_format([text]) == soft_format([text]) == [0.0]
    assert tag_count([text]) == [0.25]


def test_conversations_are_read_like_texts():
    said = [{"role": "assistant", "content": LINES}]
    assert strict_format([said]) == soft_format([said]) == tag_count([said]) == [0.5]
    in_parts = [{"role": "assistant", "content": [{"type": "text", "text": "<answer>"}, {"type": "text", "text": "5"}]}]
    assert tags_present([in_parts], score=1.0) == [1.0]


def test_length_is_minus_the_distance_in_characters():
    assert length(["x" * 47, "x" * 50, "x" * 60, ""], completion_ids=[[1]] * 4) == [-3.0, 0.0, -10.0, -50.0]


def test_length_of_a_conversation_is_that_of_its_text_not_the_number_of_messages():
    said = [{"role": "assistant", "content": "x" * 47}]
    assert length([said], completion_ids=[[1]], target=47) == [0.0]


def test_length_in_tokens():
    assert length(["ignored"] * 2, completion_ids=[[7, 8, 1], []], target=4, unit="tokens") == [-1.0, -4.0]


def test_reached_end():
    assert reached_end(["stop", "length"]) == [0.5, 0.0]
    assert reached_end(["stop"], score=2.0) == [2.0]
