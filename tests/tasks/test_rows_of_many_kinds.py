"""Data sets in the shapes that are in use become problems that can be graded: boxed answers, choices, programs."""

import asyncio
import json

import pytest

from groupwise.errors import TaskError
from groupwise.rewards import Answers, grade
from groupwise.tasks import build_task
from groupwise.tasks.choice import letter_of


def task_of(kind, rows, folder, **settings):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return build_task(kind, {"path": "rows.jsonl", **settings}, seed=0, folder=folder)


def rewards_of(task, problem, *texts):
    count = len(texts)
    columns = {name: [value] * count for name, value in problem.columns.items()}
    answers = Answers([problem.prompt] * count, texts, [()] * count, ["stop"] * count, columns)
    parts = asyncio.run(grade(task.rewards, answers))
    return [next(iter(part.parts.values())) for part in parts]


def test_boxed_answers_as_in_math(tmp_path):
    rows = [
        {"problem": "What is 3/4 + 1/4?", "solution": r"It is $\boxed{1}$.", "level": "Level 1"},
        {"problem": "Half?", "solution": r"\boxed{2}, no: $\boxed{\frac{1}{2}}$", "level": "Level 2"},
        {"problem": "Twelve?", "answer": "12"},
    ]
    task = task_of("boxed", rows, tmp_path, system_prompt="default")
    assert [p.columns["answer"] for p in task.train] == ["1", r"\frac{1}{2}", "12"]
    assert task.train[1].prompt == ({"role": "user", "content": "Half?"},)
    assert task.train[1].columns["level"] == "Level 2"
    assert "\\boxed{}" in task.system_prompt
    for problem in task.train:
        assert task.is_correct(task.demonstrations(problem), problem.columns)
    assert rewards_of(task, task.train[2], r"so \boxed{12}", r"so \boxed{12.0}", "12", r"\boxed{13}") == [1, 1, 0, 0]
    assert not task.is_correct("12", task.train[2].columns), "an answer that is not in a box is none"
    with pytest.raises(TaskError, match=r"row 0: no \\boxed\{\} in 'seven'"):
        task_of("boxed", [{"problem": "?", "solution": "seven"}], tmp_path)


CHOICES = ["London", "Paris", "Rome"]


@pytest.mark.parametrize(
    "row",
    [
        {"choices": CHOICES, "answer": 1},
        {"choices": CHOICES, "answer": "B"},
        {"options": CHOICES, "answer": "Paris"},
        {"choices": {"label": ["1", "2", "3"], "text": CHOICES}, "answerKey": "2"},
        {"choices": dict(zip("ABC", CHOICES, strict=True)), "answer": "B"},
        {**dict(zip("ABC", CHOICES, strict=True)), "answer": "B"},
    ],
    ids=["place", "letter", "text", "labels", "table", "columns"],
)
def test_multiple_choice_in_every_shape(row, tmp_path):
    task = task_of("choice", [{"question": "Capital of France?", **row}], tmp_path)
    problem = task.train[0]
    assert problem.prompt[0]["content"] == "Capital of France?\nA. London\nB. Paris\nC. Rome"
    assert problem.columns["answer"] == "B"
    said = ["<answer>B</answer>", "(B)", "B. Paris", "paris", "<answer>A</answer>", "BC", "", "Because", "A B"]
    assert rewards_of(task, problem, *said) == [1, 1, 1, 1, 0, 0, 0, 0, 0]
    assert task.is_correct(task.demonstrations(problem), problem.columns)


def test_shuffled_choices_are_the_problems_own(tmp_path):
    rows = [{"question": f"Number {n}?", "choices": ["a", "b", "c", "d"], "answer": 0} for n in range(200)]
    task = task_of("choice", rows, tmp_path, shuffle=True)
    letters = [p.columns["answer"] for p in task.train]
    assert all(30 < letters.count(letter) < 70 for letter in "ABCD")
    for problem in task.train:
        assert problem.columns["choices"]["ABCD".index(problem.columns["answer"])] == "a"
    assert [p.prompt for p in task_of("choice", rows, tmp_path, shuffle=True).train] == [p.prompt for p in task.train]


def test_a_letter_is_of_one_choice_only(tmp_path):
    assert letter_of("C", ["x", "y"]) is None
    assert letter_of("same", ["same", "same"]) is None
    with pytest.raises(TaskError, match=r"row 0: its answer 'E' is none of its 2 choices"):
        task_of("choice", [{"question": "?", "choices": ["x", "y"], "answer": "E"}], tmp_path)


def test_programs_as_in_mbpp_humaneval_and_apps(tmp_path):
    mbpp = {
        "text": "Double it.",
        "code": "def f(x):\n    return 2 * x",
        "test_list": ["assert f(1) == 2"],
        "task_id": 7,
    }
    problem = task_of("code", [mbpp], tmp_path).train[0]
    assert problem.columns["tests"] == ["assert f(1) == 2"]
    assert problem.columns["task_id"] == 7
    assert "assert f(1) == 2" in problem.prompt[0]["content"]
    humaneval = {
        "prompt": 'def f(x):\n    """Double."""\n',
        "test": "def check(candidate):\n    assert candidate(1) == 2",
        "entry_point": "f",
        "canonical_solution": "    return 2 * x\n",
    }
    task = task_of("code", [humaneval], tmp_path)
    problem = task.train[0]
    assert problem.columns["entry_point"] == "f"
    assert problem.columns["prelude"] == humaneval["prompt"]
    assert task.demonstrations(problem) == '```python\ndef f(x):\n    """Double."""\n    return 2 * x\n```'
    wanted = {"inputs": ["1\n"], "outputs": ["2\n"]}
    for row in (
        {"question": "Double.", "input_output": json.dumps(wanted)},
        {"prompt": "Double.", **wanted},
        {"description": "Double.", "public_tests": {"input": ["1\n"], "output": ["2\n"]}, "private_tests": None},
    ):
        assert task_of("code", [row], tmp_path).train[0].columns["tests"] == wanted
    for row, why in (
        ({"prompt": "x"}, "has no tests"),
        ({"prompt": "x", "inputs": ["1"], "outputs": []}, "1 inputs and 0 outputs"),
        ({"prompt": "x", "input_output": "{"}, "column input_output is no JSON"),
        ({"tests": "assert 1"}, "has no text in a column prompt"),
    ):
        with pytest.raises(TaskError, match=f"row 0.*{why}"):
            task_of("code", [row], tmp_path)


def test_columns_are_renamed_before_they_are_looked_at(tmp_path):
    rows = [{"ask": "One?", "gold": "1"}, {"ask": "Two?", "gold": "2"}]
    task = task_of("boxed", rows, tmp_path, columns={"prompt": "ask", "answer": "gold"}, hold_out=1)
    assert (len(task.train), len(task.held_out)) == (1, 1)
