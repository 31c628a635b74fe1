"""Every malformed row is reported with its number, its column, what stands there, and what to do about it."""

import pytest

from groupwise.tasks import gsm8k, rows
from groupwise.tasks.report import look_at
from groupwise.tasks.survey import LARGE_CELL, survey

GOOD = [{"prompt": f"{n}+{n}=", "answer": str(2 * n)} for n in range(5)]


def issue_of(bad, **settings):
    """The one issue of a bad row in the middle of good ones."""
    found = survey([*GOOD[:3], bad, *GOOD[3:]], **settings)
    assert found.rows == 6
    assert {issue.row for issue in found.issues} == {3}, [str(i) for i in found.issues]
    assert all(issue.cure and issue.why for issue in found.issues)
    return found


@pytest.mark.parametrize(
    ("bad", "column", "why", "good"),
    [
        ({"answer": "1"}, "prompt", "has no column 'prompt'", 5),
        ({"prompt": None, "answer": "1"}, "prompt", "a prompt is a text or a list of messages, not a NoneType", 5),
        ({"prompt": "", "answer": "1"}, "prompt", "has an empty prompt", 5),
        ({"prompt": 7, "answer": "1"}, "prompt", "not a int", 5),
        ({"prompt": b"2+2", "answer": "1"}, "prompt", "not a bytes", 5),
        ({"prompt": [], "answer": "1"}, "prompt", "empty conversation", 5),
        ({"prompt": [{"role": "user"}], "answer": "1"}, "prompt", "has no 'content'", 5),
        ({"prompt": [{"role": "user", "content": "x"}], "answer": "1"}, "prompt", "is a conversation, where 5 rows", 6),
        ({"prompt": "x\ud800", "answer": "1"}, "prompt", "holds half a character", 5),
        ({"prompt": "x", "answer": "\udfff"}, "answer", "holds half a character", 5),
        ({"prompt": "x"}, "answer", "is missing, and 5 rows have it", 6),
        ({"prompt": "x", "answer": None}, "answer", "is no value, where 5 rows have a text", 6),
        ({"prompt": "x", "answer": 1.5}, "answer", "is a number, where 5 rows have a text", 6),
        ({"prompt": "x", "answer": b"1"}, "answer", "holds bytes, not text", 6),
        ({"prompt": "x", "answer": "1", "more": 1}, "more", "only 1 of 6 rows have this column", 6),
        ({"prompt": "x", "answer": "1", "completions": 1}, "completions", "reward functions are given something", 5),
        ({"prompt": "x", "answer": "y" * (10 << 20)}, "answer", "is very large", 6),
        ({"prompt": "1+1=", "answer": "2"}, "prompt", "asks the same as row 1", 6),
        (None, "", "is no row", 5),
        ("text", "", "is no row", 5),
    ],
    ids=lambda value: str(value)[:30],
)
def test_each_kind_of_bad_row(bad, column, why, good):
    found = issue_of(bad)
    issue = next(i for i in found.issues if i.column == column and why in i.why)
    assert found.good == good
    assert len(str(issue)) < 500, "a cell of 10 MB is not told in full"
    if column and isinstance(bad, dict) and bad.get(column):
        assert issue.excerpt[:8] == ascii(bad[column])[:8]
    assert str(issue).isascii()


def test_no_rows_and_renamed_columns():
    (issue,) = survey([]).issues
    assert issue.why == "there are no rows"
    good = [{"question": "x", "answer": "1"}, {"question": "y", "answer": "1"}]
    assert survey(good, {"prompt": "question"}).issues == []
    assert survey([*good, {"answer": "1"}], {"prompt": "question"}).issues[0].row == 2
    assert LARGE_CELL == 1_048_576


def test_gold_answers_are_judged_by_the_task_itself(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text('{"question": "1+1?", "answer": "1+1=2\\n#### 2"}\n')
    report = look_at(gsm8k(path=str(tmp_path)))
    assert (report.problems, report.held_out, report.judged, report.wrong, report.gold) == (1, 1, 2, (), 1.0)
    assert "gold answers right: 2 of 2" in str(report)
    odd = rows([{"prompt": "x", "answer": "<answer>"}, {"prompt": "y", "answer": "7"}])
    assert look_at(odd).wrong == ("rows/train/0",)
    assert look_at(rows([{"prompt": "x"}])).gold is None
