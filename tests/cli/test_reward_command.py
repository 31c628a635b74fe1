"""`groupwise reward test` and `replay`."""

import json

import pytest

FILE = """
def good(completions, answer, **kwargs):
    return [float(a in c) for c, a in zip(completions, answer)]
def constant(completions):
    return [1.0 for c in completions]
def _hidden(completions):
    return []
def other(text):
    return text
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "reward.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_function_of_a_file_on_made_up_answers(folder, groupwise):
    ended = groupwise("reward", "test", "reward.py")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("24 made-up answers")
    assert "good: " in ended.out and "  1 (79%)  0 (21%)" in ended.out
    assert "WARNING: the same for every answer" in ended.out
    assert "good and constant: one of them is constant; 79% of the answers" in ended.out
    assert "WARNING: good pays the null policy 'every answer' up to 1 (mean 1), as much as the best answer" in ended.out
    assert "hidden" not in ended.out and "other" not in ended.out


def test_rows_of_a_file(folder, groupwise):
    rows = [
        {"prompt": "2+2=", "completions": ["<answer>4</answer>", "<answer>5</answer>"], "answer": "4"},
        {"prompt": "3+3=", "completion": "<answer>6</answer>", "answer": None},
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ended = groupwise("reward", "test", "correctness", "--data", "rows.jsonl")
    assert ended.code == 0, ended.err
    assert "3 answers of rows.jsonl" in ended.out and "None (not graded) 33.3%" in ended.out
    assert "mean 1  std 1  min 0  median 1  max 2" in ended.out
    assert "null policies: none of 11 is paid" in ended.out


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["try", "reward.py"], "there are `test` and `replay`"),
        (["test", "reward.py", "--run", "a", "--data", "b"], "give one of them"),
        (["test", "no.py"], "there is no file"),
        (["test", "nothing"], "no built-in reward 'nothing'"),
        (["test", "correctness", "--data", "bad.jsonl"], "row 0: there is no text in `completion`"),
        (["replay", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_message(folder, groupwise, line, told):
    (folder / "bad.jsonl").write_text('{"prompt": "x"}\n')
    ended = groupwise("reward", *line)
    assert ended.code == 1 and told in ended.err and "Traceback" not in ended.err


def test_a_run_is_tested_and_replayed(folder, recipe, groupwise):
    assert groupwise("train", "recipe.toml", "evaluation.before=false").code == 0
    tested = groupwise("reward", "test", "reward.py:constant", "--run", "runs/toy")
    assert tested.code == 0 and "16 rollouts of runs/toy" in tested.out, tested.err
    same = groupwise("reward", "replay", "runs/toy")
    assert same.code == 0, same.err
    assert "over all 16 rollouts: cosine +1.00, 0% change their sign" in same.out
    flat = groupwise("reward", "replay", "runs/toy", "--function", "reward.py:constant")
    assert "2 -> 0" in flat.out and "cosine +0.00" in flat.out
