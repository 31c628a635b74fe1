import itertools

import datasets
import pytest

from groupwise.errors import TaskError
from groupwise.tasks import rows


def refusal(*data, **settings):
    with pytest.raises(TaskError) as caught:
        rows(*data, **settings)
    return str(caught.value)


def test_dicts_and_data_sets_are_rows():
    listed = [{"prompt": "a", "answer": "1"}, {"prompt": [{"role": "user", "content": "b"}], "answer": "2"}]
    task = rows(listed, name="mine")
    assert [p.id for p in task.train] == ["mine/train/0", "mine/train/1"]
    assert [p.prompt for p in task.train] == ["a", ({"role": "user", "content": "b"},)]
    assert task.held_out == [] and task.is_correct("1", {"answer": "1"})
    table = datasets.Dataset.from_list([{"prompt": "a", "answer": "1"}])
    assert rows(table, name="mine").train == task.train[:1]


def test_held_out_rows_may_be_given():
    task = rows([{"prompt": "a"}], [{"prompt": "b"}])
    assert [p.id for p in task.held_out] == ["rows/eval/0"]


def test_the_caller_s_rows_are_not_changed():
    row = {"prompt": "a", "answer": "1"}
    rows([row])
    assert row == {"prompt": "a", "answer": "1"}


def test_the_held_out_rows_share_no_prompt_with_training():
    data = [{"prompt": f"p{n % 10}", "n": n} for n in range(40)]
    task = rows(data, hold_out=4)
    held_out = {p.prompt for p in task.held_out}
    assert len(task.held_out) == len(held_out) == 4
    assert len(task.train) == 24 and not held_out & {p.prompt for p in task.train}


def test_conversations_are_compared_by_what_they_say():
    data = [{"prompt": [{"role": "user", "content": f"p{n % 2}"}]} for n in range(6)]
    task = rows(data, hold_out=1)
    assert len(task.held_out) == 1 and len(task.train) == 3


def test_the_drawing_depends_on_the_seed_alone():
    data = [{"prompt": str(n)} for n in range(50)]
    held_out = rows(data, hold_out=10, seed=5).held_out
    assert rows(data, hold_out=10, seed=5).held_out == held_out != rows(data, hold_out=10, seed=6).held_out
    assert [int(p.prompt) for p in held_out] == sorted(int(p.prompt) for p in held_out)


def test_without_a_gold_answer_in_every_row_there_is_no_right_and_wrong():
    assert rows([{"prompt": "a", "answer": "1"}, {"prompt": "b", "answer": None}]).is_correct is None
    assert rows([{"prompt": "a"}]).is_correct is None
    assert rows([{"prompt": "a", "answer": 4}]).is_correct("so \\boxed{4.0}", {"answer": 4})


def test_completions_are_demonstrations():
    task = rows([{"prompt": "a", "completion": "b"}])
    assert task.demonstrations(task.train[0]) == "b"
    assert rows([{"prompt": "a", "completion": "b"}, {"prompt": "c"}]).demonstrations is None


def test_a_system_prompt_is_handed_on_and_there_are_no_own_words():
    assert rows([{"prompt": "a"}], system_prompt="Be brief.").system_prompt == "Be brief."
    assert "has no words of its own" in refusal([{"prompt": "a"}], system_prompt="default")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({}, "rows/train, row 1 has no column 'prompt'; it has no columns"),
        ({"prompt": None}, "row 1: a prompt is a text or a list of messages, not a NoneType"),
        ({"prompt": 5}, "not a int"),
        ({"prompt": b"bytes"}, "not a bytes"),
        ({"prompt": " \n"}, "row 1 has an empty prompt"),
        ({"prompt": []}, "row 1 has an empty conversation"),
        ({"prompt": ["hello"]}, "row 1, message 0 is a str: a message is a dict with a 'role' and a 'content'"),
        ({"prompt": [{"role": "user"}]}, "message 0 has no 'content', it has role: a message is"),
        ({"prompt": [{"role": "user", "content": None}]}, "message 0 has None as its 'content': a message is"),
        ({"prompt": [{"role": "user", "content": 5}]}, "message 0 has a int as its 'content': a message is"),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "Pictures and sounds are not trained on"),
        ({"prompt": [{3: "user", "content": "x"}]}, "row 1, message 0 has the name 3, a int: names are texts, '3'"),
        ({"prompt": "a", 3: "b"}, "row 1 has the name 3, a int: names are texts, '3'"),
        ({"prompt": "a\ud800"}, "row 1, prompt holds half a character, '\\ud800' at position 1"),
        ({"prompt": [{"role": "user", "content": "\udfff"}]}, "message 0 holds half a character"),
        ({"prompt": "a", "answer": "é\ud800"}, "row 1, column 'answer' holds half a character"),
        ({"prompt": "a", "completions": "b"}, "row 1 has a column 'completions', but reward functions are given"),
    ],
)
def test_rows_that_are_no_problems(row, told):
    assert told in refusal([{"prompt": "fine"}, row])


def test_no_rows():
    assert "rows/train has no rows" in refusal([])
    assert "rows/eval has no rows" in refusal([{"prompt": "a"}], [])


def endless():
    for i in itertools.count():
        yield {"prompt": str(i)}


def test_what_has_no_length_is_read_to_the_limit_or_refused(monkeypatch):
    task = rows(endless(), hold_out=2, limit=5)
    assert sorted(int(problem.prompt) for problem in [*task.train, *task.held_out]) == [0, 1, 2, 3, 4, 5, 6]
    assert len(rows(map(dict, [{"prompt": "a"}] * 3)).train) == 3
    monkeypatch.setitem(rows.__globals__, "MOST_UNCOUNTED", 10)
    assert len(rows(itertools.islice(endless(), 10)).train) == 10
    assert len(rows([{"prompt": "a"}] * 11).train) == 11, "a list ends"
    told = refusal(endless())
    assert "rows/train goes on after 10 rows and has no length" in told and "task.limit" in told


def test_odd_texts_that_are_fine():
    texts = ["\x00", "x" * 1_000_000, "\u202e", "a\n" * 1000]
    assert [p.prompt for p in rows([{"prompt": text} for text in texts]).train] == texts


def test_blanks_around_the_name_of_a_column_are_shown():
    assert "it has question, ' prompt', ''" in refusal([{"question": "a", " prompt": "b", "": "c"}])
