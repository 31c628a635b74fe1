"""A task of one's own in one file: rows, or a whole Task."""

import pytest

from groupwise.errors import TaskError
from groupwise.tasks import build_task, rows

CODE = """
from groupwise.tasks import Task
from groupwise.types import Problem


def sums(digits=1, seed=0):
    for n in range(10**digits):
        yield {"prompt": f"{n}+{n}=", "answer": str(2 * n), "seed_was": seed}


def whole(n=2):
    return Task("mine", [Problem(f"p{i}", "x") for i in range(n)], [Problem("h", "y")], system_prompt="words")


def endless():
    n = 0
    while True:
        yield {"prompt": str(n := n + 1)}


LISTED = [{"prompt": "a"}, {"prompt": "b"}]


def broken():
    yield {"prompt": "a"}
    raise KeyError("lost")


def number():
    return 7


def leaves():
    raise SystemExit("no connection")


def pairs():
    return [("1+1=", "2")]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path


def made(folder, name, **settings):
    return build_task("file", {"path": f"mine.py:{name}", **settings}, seed=5, folder=folder)


def test_a_function_that_yields_rows(folder):
    task = made(folder, "sums", settings={"digits": 2}, hold_out=10, limit=50)
    assert (task.name, len(task.train), len(task.held_out)) == ("sums", 50, 10)
    assert task.train[0].columns["seed_was"] == 5, "the run's seed, where the function takes one"
    assert task.is_correct("4", {"answer": "4"})


def test_an_endless_generator_is_read_to_the_limit(folder):
    task = made(folder, "endless", hold_out=2, limit=5)
    assert sorted(int(problem.prompt) for problem in [*task.train, *task.held_out]) == [1, 2, 3, 4, 5, 6, 7]


def test_a_whole_task_and_a_list(folder):
    task = made(folder, "whole", settings={"n": 5}, limit=3)
    assert (task.name, len(task.train), len(task.held_out), task.system_prompt) == ("mine", 3, 1, "words")
    assert made(folder, "whole", system_prompt="others").system_prompt == "others"
    assert len(made(folder, "LISTED").train) == 2


@pytest.mark.parametrize(
    ("name", "settings", "why"),
    [
        ("sums", {"settings": {"digit": 1}}, "does not take the setting 'digit'. It takes: digits, seed"),
        ("suns", {}, "has nothing called 'suns'"),
        ("broken", {}, "raised KeyError: 'lost'"),
        ("endless", {}, "mine.py:endless goes on after 20 rows and has no length"),
        ("leaves", {}, "raised SystemExit: no connection"),
        ("pairs", {}, "row 0 is a tuple, ('1+1=', '2'): a row is a dict of columns"),
        ("number", {}, "gives a int: it has to give a Task, or rows"),
        ("whole", {"hold_out": 1}, "has held-out problems of its own"),
        ("LISTED", {"settings": {"n": 1}}, "is no function that could take them"),
    ],
)
def test_mistakes_say_what_to_do(name, settings, why, folder, monkeypatch):
    monkeypatch.setitem(rows.__globals__, "MOST_UNCOUNTED", 20)
    with pytest.raises(TaskError) as caught:
        made(folder, name, **settings)
    assert why in str(caught.value)
