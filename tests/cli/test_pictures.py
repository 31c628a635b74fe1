"""Sparklines, curves and tables, character by character."""

import io
import math

from rich.console import Console

from groupwise.cli.pictures import answers_table, curve, side_by_side, sparkline
from groupwise.runs.evaluations import EvaluatedAnswer
from groupwise.types import Completion, Problem


def printed(renderable, width=80, **options):
    console = Console(file=io.StringIO(), width=width, **options)
    console.print(renderable)
    return console.file.getvalue()


def answer(number, text, correct, greedy=True):
    problem = Problem(f"p{number}", f"{number} + 1 =", {"answer": str(number + 1)})
    return EvaluatedAnswer(problem, Completion((1,), (0.0,), "stop", text), correct, greedy)


def test_a_sparkline_spans_least_to_greatest():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7, 8]) == "▁▁▂▃▄▅▆▇█"
    assert sparkline([0.5, 0.6], 0, 1) == "▄▅"
    assert sparkline([3, 3, 3]) == "▄▄▄"
    assert sparkline([0, math.nan, 1, math.inf]) == "▁ █ "
    assert sparkline([]) == ""
    assert sparkline([math.nan]) == " "
    assert sparkline([0, 4, 8], ascii_only=True) == ".:#"


def test_a_curve_by_hand():
    # 5 columns of 2 rows (16 eighths), 0 to 1: 0 -> 1 (never nothing), 0.25 -> 4, 0.5 -> 8, 0.75 -> 12, 1 -> 16
    assert curve([0, 0.25, 0.5, 0.75, 1], width=11, height=2).plain == "\n".join(
        ["1.00 │   ▄█", "0.00 │▁▄███", "     └─────", "      1   5"]
    )


def test_a_curve_of_more_values_than_columns_shows_their_means():
    assert curve([0, 1] * 50, width=16, height=1).plain.splitlines()[0] == "0.00 │▄▄▄▄▄▄▄▄▄▄"


def test_a_curve_of_fewer_values_than_columns_repeats_them():
    assert curve([0.5, 1], width=12, height=1).plain.splitlines()[0] == "0.00 │▄▄▄███"


def test_a_curve_starts_at_zero_unless_something_is_below():
    assert "0.00" in curve([5, 6], height=3).plain
    assert "-2.00" in curve([-2, 6], height=3).plain


def test_curves_of_nothing_much():
    assert curve([]).plain == curve([math.nan]).plain == "(nothing to plot)"
    assert "1.00" in curve([0, 0, 0]).plain
    gap = curve([1, math.nan, 1], width=12, height=1).plain.splitlines()[0]
    assert gap == "0.00 │██  ██"


def test_a_curve_never_is_wider_than_asked():
    for width in range(12, 90):
        lines = curve([step / 300 for step in range(300)], width=width).plain.splitlines()
        assert max(map(len, lines)) <= width
        assert lines[-1].endswith("300")


def test_plain_characters_only():
    picture = curve([0, 0.5, 1], ascii_only=True).plain
    table = side_by_side([answer(1, "3", False)], [answer(1, "2", True)], ascii_only=True)
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=file, width=60).print(table)
    assert (picture + sparkline([1, 2], ascii_only=True)).isascii()


def test_answers_stand_side_by_side():
    before = [answer(1, "3", False), answer(2, "3", True), answer(2, "sampled", False, greedy=False)]
    after = [answer(2, "9", False), answer(1, "2", True), answer(3, "new", True), answer(1, "7", False, greedy=False)]
    shown = printed(side_by_side(before, after))
    assert "the first 2 of 2 held-out problems" in shown
    rows = [line.split() for line in shown.splitlines() if "+ 1" in line]
    assert rows == [["1", "+", "1", "=", "2", "✗", "3", "✓", "2"], ["2", "+", "1", "=", "3", "✓", "3", "✗", "9"]]


def test_a_mark_stands_beside_a_word_that_is_wider_than_its_cell():
    shown = printed(side_by_side([answer(1, "a" * 50, False)], [answer(1, "b" * 50, True)]), width=60)
    assert "✗ aaaa" in shown and "✓ bbbb" in shown
    assert shown.count("a") - shown.count("after") >= 50, "nothing is cut"


def test_the_first_problems_are_shown_not_the_best():
    before = [answer(number, "?", False) for number in range(20)]
    after = [answer(number, "!", number >= 10) for number in range(20)]
    shown = printed(side_by_side(before, after, limit=3))
    assert "the first 3 of 20 held-out problems" in shown
    assert "✓" not in shown


def test_some_wrong_and_some_right_answers():
    answers = [answer(n, f"got {n}", correct=n % 3 == 0) for n in range(9)]
    answers.append(answer(9, "drawn", correct=True, greedy=False))
    lines = printed(answers_table(answers, 2, ascii_only=True), width=50).splitlines()
    assert lines[0] == "2 of 6 wrong, 2 of 3 right"
    assert [line.split() for line in lines if "got" in line] == [
        ["1", "+", "1", "=", "2", "x", "got", "1"],
        ["2", "+", "1", "=", "3", "x", "got", "2"],
        ["0", "+", "1", "=", "1", "ok", "got", "0"],
        ["3", "+", "1", "=", "4", "ok", "got", "3"],
    ]


def test_what_is_shown_is_said_where_there_are_few_or_none():
    wrong = [answer(n, "?", correct=False) for n in range(256)]
    assert printed(answers_table(wrong, 3)).startswith("3 of 256 wrong, none right\n")
    mixed = [*wrong[:2], answer(300, "!", correct=True)]
    assert printed(answers_table(mixed, 3)).startswith("all 2 wrong, 1 right\n")


def test_answers_that_nobody_judged_have_no_marks():
    shown = printed(answers_table([answer(1, "a", correct=False), answer(2, "b", correct=False)], 1, judged=False))
    assert shown.startswith("the first 1 of 2 answers\n")
    assert "✗" not in shown
    assert "2 + 1" not in shown


def test_hostile_text_is_only_text():
    hostile = "\x1b]0;title\x07\x1b[2J[red]markup[/red] :smile: \u202e\ud800\r\nnext"
    shown = printed(side_by_side([answer(1, hostile, False)], [answer(1, "", False)]), force_terminal=True, width=120)
    assert "[red]markup[/red] :smile: \\ud800 next" in shown
    assert "(nothing)" in shown
    assert not set(shown) & {"\x07", "\u202e", "\r"}
    assert "\x1b]" not in shown
    assert "\x1b[2J" not in shown


def test_of_a_long_answer_the_end_is_shown():
    shown = printed(side_by_side([answer(1, "x" * 5000 + " so it is 42", True)], [answer(1, "y", False)]), width=60)
    assert "42" in shown
    assert len(shown.splitlines()) < 15


def test_conversations_show_what_was_asked_last():
    prompt = ({"role": "system", "content": "be kind"}, {"role": "user", "content": "3+3=?"})
    one = EvaluatedAnswer(Problem("p", prompt), Completion((), (), "stop", "6"), True)
    shown = printed(side_by_side([one], [one]))
    assert "3+3=?" in shown
    assert "be kind" not in shown
    assert "expected" not in shown, "this problem tells no answer"
