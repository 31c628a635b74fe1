import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from groupwise.errors import TaskError
from groupwise.rewards import correctness, number, strict_format, tag_count
from groupwise.tasks import gsm8k
from groupwise.tasks.reading import read_file

DATA = Path(__file__).parents[1] / "data" / "gsm8k"


def test_the_real_rows():
    task = gsm8k(path=str(DATA))
    assert (len(task.train), len(task.held_out)) == (48, 24)
    first = task.train[0]
    assert first.id == "gsm8k/train/0" and task.held_out[0].id == "gsm8k/test/0"
    assert first.prompt[0]["role"] == "user" and first.prompt[0]["content"].startswith("Natalia sold clips to 48")
    assert first.columns["answer"] == "72"
    assert first.columns["rationale"].startswith("Natalia sold 48/2 = <<48/2=24>>24 clips in May.")
    assert "####" not in first.columns["rationale"]


def test_every_demonstration_is_correct_and_in_the_layout():
    task = gsm8k(path="gsm8k", folder=DATA.parent)
    assert task.demonstrations(task.train[0]) == (
        "<reasoning>\nNatalia sold 48/2 = 24 clips in May.\n"
        "Natalia sold 48+24 = 72 clips altogether in April and May.\n</reasoning>\n<answer>\n72\n</answer>"
    )
    for problem in [*task.train, *task.held_out]:
        demonstration = task.demonstrations(problem)
        assert "<<" not in demonstration and number(problem.columns["answer"]) is not None
        assert task.is_correct(demonstration, problem.columns)
        assert correctness([demonstration], answer=[problem.columns["answer"]]) == [2.0]
        assert strict_format([demonstration]) == tag_count([demonstration]) == [0.5]


def test_answers_count_however_they_are_marked_and_spelled():
    task = gsm8k(path=str(DATA))
    for text in ["<answer>$1,000.00</answer>", "so it is\n#### 1000", r"\boxed{1000}", "1000"]:
        assert task.is_correct(text, {"answer": "1000"})
    for text in ["<answer>1001</answer>", "<answer>1000", "500 + 500 = 1000", ""]:
        assert not task.is_correct(text, {"answer": "1000"})


def write(folder, *answers):
    lines = [f'{{"question": "q{index}", "answer": "{answer}"}}\n' for index, answer in enumerate(answers)]
    (folder / "train.jsonl").write_text("".join(lines))
    (folder / "test.jsonl").write_text(lines[0])
    return str(folder)


def test_commas_are_removed_from_gold_answers(tmp_path):
    assert gsm8k(path=write(tmp_path, "a lot #### 1,234,567")).train[0].columns["answer"] == "1234567"


def test_hold_out_takes_problems_from_training_and_limit_the_first_of_the_rest():
    task = gsm8k(path=str(DATA), hold_out=8, limit=10, seed=1)
    assert len(task.held_out) == 8 and len(task.train) == 10
    assert all(problem.id.startswith("gsm8k/train/") for problem in task.held_out)
    assert not {p.id for p in task.train} & {p.id for p in task.held_out}
    rest = gsm8k(path=str(DATA), hold_out=8, seed=1).train
    assert len(rest) == 40 and rest[:10] == task.train
    assert gsm8k(path=str(DATA), hold_out=8, seed=1).held_out == task.held_out
    assert gsm8k(path=str(DATA), hold_out=8, seed=2).held_out != task.held_out


def test_parquet_in_the_layout_of_the_hub(tmp_path):
    rows = read_file(DATA / "train.jsonl")
    (tmp_path / "main").mkdir()
    for part in (0, 1):
        table = pa.Table.from_pylist(rows[part * 24 : part * 24 + 24])
        pq.write_table(table, tmp_path / "main" / f"train-0000{part}-of-00002.parquet")
    shutil.copy(DATA / "test.jsonl", tmp_path / "test.jsonl")
    assert gsm8k(path=str(tmp_path)).train == gsm8k(path=str(DATA)).train


def test_the_words_of_the_task():
    assert gsm8k(path=str(DATA)).system_prompt is None
    words = gsm8k(path=str(DATA), system_prompt="default").system_prompt
    assert all(tag in words for tag in ["<reasoning>", "</reasoning>", "<answer>", "</answer>"])


def test_mistakes(tmp_path):
    with pytest.raises(TaskError, match=r"has no file for the split 'valid'; it has test\.jsonl, train\.jsonl"):
        gsm8k(path=str(DATA), eval_split="valid")
    with pytest.raises(TaskError, match=r"there is no file or folder .*missing"):
        gsm8k(path="./missing", folder=tmp_path)
    with pytest.raises(TaskError, match=r"row 1: the answer does not end in '#### ' and a number: 'no idea'"):
        gsm8k(path=write(tmp_path, "#### 1", "no idea"))
    (tmp_path / "train.jsonl").write_text('{"question": "q"}\n')
    with pytest.raises(TaskError, match="row 0 has no text in the column 'answer'; it has question"):
        gsm8k(path=str(tmp_path))
