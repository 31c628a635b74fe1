"""Rollouts and answers as tables: what goes in comes out, whatever the model wrote."""

import math

import pyarrow.parquet as pq
import pytest

from groupwise.errors import RunError
from groupwise.runs.evaluations import EvaluatedAnswer, read_answers, write_answers
from groupwise.runs.rollouts import read_rollouts, write_rollouts
from groupwise.types import Completion, Group, Problem, Rollout


def rollout(text, reward=None, parts=None, advantage=0.0):
    completion = Completion((5, 6, 2), (-0.5, -0.25, 0.0), "stop", text)
    return Rollout(completion, parts or {}, reward, advantage)


def two_groups():
    problem = Problem("p7", "2+2=?", {"answer": "4", "odd": {1}})
    chat = Problem("p8", ({"role": "user", "content": "3+3=?"},), {"answer": "6"})
    return [
        Group(
            problem,
            (17, 10),
            (rollout("4", 2.0, {"correct": 2.0, "format": None}, 0.75), rollout("5", 0.0, {"correct": 0.0})),
        ),
        Group(chat, (3,), (rollout("nothing graded this"),)),
    ]


def test_rollouts_come_back_in_order(tmp_path):
    write_rollouts(tmp_path / "000041.parquet", 41, two_groups(), {"parsed": ["4", None, [1, math.nan]]})
    rows = read_rollouts(tmp_path / "000041.parquet")
    assert [(row.step, row.group, row.branch) for row in rows] == [(41, 0, 0), (41, 0, 1), (41, 1, 0)]
    first, _, last = rows
    assert (first.problem_id, first.prompt, first.text, first.finish_reason) == ("p7", "2+2=?", "4", "stop")
    assert first.columns == {"answer": "4", "odd": "{1}"}
    assert (first.prompt_ids, first.token_ids, first.logprobs) == ((17, 10), (5, 6, 2), (-0.5, -0.25, 0.0))
    assert first.reward_parts == {"correct": 2.0, "format": None}
    assert (first.reward, first.advantage) == (2.0, 0.75)
    assert (last.reward, last.reward_parts) == (None, {})
    assert last.prompt == '[{"role": "user", "content": "3+3=?"}]'
    assert [row.extra for row in rows] == [{"parsed": "4"}, {"parsed": None}, {"parsed": [1, None]}]


def test_the_schema_does_not_depend_on_the_rewards(tmp_path):
    graded, ungraded, empty = (tmp_path / name for name in ("a.parquet", "b.parquet", "c.parquet"))
    write_rollouts(graded, 1, two_groups(), {"x": [1, 2, 3]})
    write_rollouts(ungraded, 2, [Group(Problem("p", ""), (), (rollout(""),))])
    write_rollouts(empty, 3, [])
    assert pq.read_schema(graded).equals(pq.read_schema(ungraded))
    assert pq.read_schema(graded).equals(pq.read_schema(empty))
    assert read_rollouts(empty) == []
    assert pq.ParquetFile(graded).metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("lone \ud800 half", "lone \\ud800 half"),
        ("nul \x00 inside", "nul \x00 inside"),
        ("\x1b]0;title\x07 and \u202e", "\x1b]0;title\x07 and \u202e"),
        ("你好 😀", "你好 😀"),
        ("x" * 1_000_000, "x" * 1_000_000),
    ],
)
def test_any_text_can_be_stored(tmp_path, text, stored):
    group = Group(Problem(text, text, {text[:20]: text}), (1,), (rollout(text, 1.0, {text: 1.0}),))
    write_rollouts(tmp_path / "t.parquet", 1, [group], {text: [text]})
    (row,) = read_rollouts(tmp_path / "t.parquet")
    assert (row.text, row.prompt, row.problem_id) == (stored, stored, stored)
    assert row.reward_parts == {stored: 1.0}
    assert list(row.extra) == [stored]


def test_rewards_that_are_not_finite_can_be_stored(tmp_path):
    group = Group(Problem("p", ""), (), (rollout("", math.inf, {"a": math.nan}),))
    write_rollouts(tmp_path / "t.parquet", 1, [group])
    (row,) = read_rollouts(tmp_path / "t.parquet")
    assert row.reward == math.inf
    assert math.isnan(row.reward_parts["a"])


def test_answers_come_back(tmp_path):
    problem = Problem("p7", "2+2=?", {"answer": "4"})
    completion = Completion((5, 2), (-0.5, 0.0), "length", "4 \ud800")
    write_answers(
        tmp_path / "a.parquet",
        50,
        [EvaluatedAnswer(problem, completion, True), EvaluatedAnswer(problem, completion, False, False, 3)],
    )
    stored = Completion((5, 2), (-0.5, 0.0), "length", "4 \\ud800")
    assert read_answers(tmp_path / "a.parquet") == [
        EvaluatedAnswer(problem, stored, True, True, 0),
        EvaluatedAnswer(problem, stored, False, False, 3),
    ]


def test_a_missing_or_damaged_table_is_an_error(tmp_path):
    with pytest.raises(RunError, match=r"there is no .*absent"):
        read_rollouts(tmp_path / "absent.parquet")
    write_rollouts(tmp_path / "t.parquet", 1, two_groups())
    content = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match=r"cannot read .*t\.parquet"):
        read_rollouts(tmp_path / "t.parquet")
