import csv
import json
import socket
import time
from itertools import count
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from groupwise.config.schema import task_kinds
from groupwise.errors import TaskError
from groupwise.tasks import TASKS, build_task, dataset, gsm8k
from groupwise.tasks.splits import raw_splits

ROWS = [{"prompt": f"{n}+{n}=", "answer": str(2 * n), "level": n} for n in range(6)]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sums.jsonl").write_text(lines(ROWS))
    return tmp_path


def refusal(path, folder, **settings):
    with pytest.raises(TaskError) as caught:
        dataset(path, folder=folder, **settings)
    return str(caught.value)


def test_a_file_is_one_split(folder):
    task = dataset("sums.jsonl", folder=folder, hold_out=2)
    assert task.name == "sums" and (len(task.train), len(task.held_out)) == (4, 2)
    problem = task.train[0]
    assert problem.prompt == f"{problem.columns['level']}+{problem.columns['level']}="
    assert problem.id == f"sums/train/{problem.columns['level']}"
    assert task.is_correct("<answer>4</answer>", {"answer": "4"}) and not task.is_correct("5", {"answer": "4"})
    assert task.rewards == () and task.demonstrations is None


def test_every_format_gives_the_same_problems(folder):
    (folder / "sums.json").write_text(json.dumps(ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "sums.parquet")
    expected = dataset("sums.jsonl", folder=folder).train
    assert dataset("sums.json", folder=folder).train == expected
    assert dataset("sums.parquet", folder=folder).train == expected


def test_csv_keeps_cells_as_they_are_written(folder):
    long = "x" * 300_000
    with (folder / "sums.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["prompt", "answer"], ['say "a, b"\nand c', "007"], [long, "é"]])
    limit = csv.field_size_limit()
    first, second = dataset("sums.csv", folder=folder).train
    assert (first.prompt, first.columns) == ('say "a, b"\nand c', {"answer": "007"})
    assert (second.prompt, second.columns) == (long, {"answer": "é"})
    assert csv.field_size_limit() == limit


def test_a_folder_has_a_file_per_split(folder):
    (folder / "valid.json").write_text(json.dumps(ROWS[:2]))
    task = dataset(".", folder=folder, train_split="sums", eval_split="valid")
    assert (len(task.train), len(task.held_out)) == (6, 2)


def test_columns_are_renamed(folder):
    (folder / "other.jsonl").write_text(lines([{"question": "q", "solution": "5", "prompt": "old"}]))
    problem = dataset("other.jsonl", folder=folder, columns={"prompt": "question", "answer": "solution"}).train[0]
    assert (problem.prompt, problem.columns) == ("q", {"answer": "5"})


def test_limit_keeps_the_first_rows_that_are_not_held_out(folder):
    task = dataset("sums.jsonl", folder=folder, hold_out=2, limit=3)
    assert task.train == dataset("sums.jsonl", folder=folder, hold_out=2).train[:3] and len(task.held_out) == 2


def test_blank_lines_and_a_byte_order_mark_are_no_rows(folder):
    (folder / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\n\n  \r\n{"prompt": "b"}')
    assert [p.prompt for p in dataset("a.jsonl", folder=folder).train] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt": \n', "line 2 is not valid JSON: Expecting value at column 11"),
        ("a.jsonl", b'{"prompt": "a"}\n[1]\n', "a.jsonl, line 2 is a list: a row is an object"),
        ("a.jsonl", b'{"prompt": "\xff"}\n', "a.jsonl, line 1 is not UTF-8 ('utf-8' codec"),
        ("a.jsonl", b'{"prompt": "a", "n": ' + b"9" * 5000 + b"}", "line 1 is not valid JSON: Exceeds the limit"),
        ("a.jsonl", b"[" * 200_000, "line 1 is not valid JSON"),
        ("a.jsonl", b"", "a.jsonl has no rows"),
        ("a.json", b'{"prompt": "a"}', "holds a dict: a json file of rows is a list of objects"),
        ("a.json", b"[1]", "entry 0 is a int"),
        ("a.csv", b"prompt,answer\na,1\nb\n", "line 3 has not as many cells as the header has columns (2)"),
        ("a.csv", b"prompt,answer\na,1,2\n", "line 2 has not as many cells"),
        ("a.csv", b'prompt\n"a', "is not valid CSV: unexpected end of data"),
        ("a.csv", "prompt\n一加一\n".encode("gbk"), "iconv -f GB18030 -t UTF-8"),
        ("a.csv", b"prompt,answer,answer\na,1,2\n", "has two columns called 'answer' in its header"),
        ("a.parquet", b"PAR1 not really", "is not a parquet file that can be read"),
        ("a.txt", b"prompt", "ends in '.txt': rows are read from .jsonl, .json, .csv, .parquet"),
    ],
)
def test_files_that_are_not_what_they_are_called(folder, name, content, told):
    (folder / name).write_bytes(content)
    message = refusal(name, folder)
    assert told in message and str(folder) in message


def test_places_that_do_not_exist(folder):
    for path in ["missing.jsonl", "./missing", "~/surely/not/there", "a/b/c"]:
        assert "there is no file or folder" in refusal(path, folder)
    assert "has no file for the split 'train'; it has sums.jsonl" in refusal(".", folder)
    (folder / "empty").mkdir()
    assert "it has no .jsonl, .json, .csv, .parquet file at all" in refusal("./empty", folder)


def test_a_split_in_two_formats_is_ambiguous(folder):
    for name in ("train.json", "train.jsonl"):
        (folder / name).write_text("[]")
    assert "several files for the split 'train', which one?" in refusal(".", folder)


def test_a_stream_is_read_as_far_as_is_asked_for(folder):
    whole = dataset("sums.jsonl", folder=folder)
    with (folder / "sums.jsonl").open("a") as file:
        file.write("no json at all\n")  # whoever reads on finds this
    first = dataset("sums.jsonl", folder=folder, streaming=True, limit=4)
    assert first.train == whole.train[:4]
    task = dataset("sums.jsonl", folder=folder, streaming=True, limit=3, hold_out=2)
    assert (len(task.train), len(task.held_out)) == (3, 2)
    assert {p.id for p in (*task.train, *task.held_out)} == {p.id for p in whole.train[:5]}
    assert "not valid JSON" in refusal("sums.jsonl", folder, limit=4)
    assert "Say how many rows to train on: task.limit" in refusal("sums.jsonl", folder, streaming=True)
    settings = {"path": "sums.jsonl", "train_split": "train", "streaming": True, "limit": 3, "hold_out": 2}
    (split,) = raw_splits("dataset", settings, folder=folder, seed=0)
    assert len(split.rows) == 5


def test_a_stream_from_the_hub_is_asked_for_as_one(folder, monkeypatch):
    asked = []

    def load(path, name, **how):
        asked.append((path, name, how))
        return ({"prompt": f"{i}+{i}=", "answer": str(2 * i)} for i in count())  # it has no end

    monkeypatch.setattr("datasets.load_dataset", load)
    assert len(dataset("someone/endless", folder=folder, streaming=True, limit=7).train) == 7
    assert asked == [("someone/endless", None, {"split": "train", "revision": None, "streaming": True})]


def test_settings_that_do_not_fit_the_place(folder):
    assert "has no split 'test': use task.hold_out" in refusal("sums.jsonl", folder, eval_split="test")
    assert "remove task.train_split" in refusal("sums.jsonl", folder, train_split="dev")
    assert "task.revision = 'main' is for data sets on the hub" in refusal("sums.jsonl", folder, revision="main")
    assert "task.name = 'main' is the configuration of a hub" in refusal("sums.jsonl", folder, name="main")
    assert "both a split to evaluate on and hold_out = 1" in refusal(
        ".", folder, train_split="sums", eval_split="sums", hold_out=1
    )
    assert "hold_out = 6 leaves nothing to train on: there are 6" in refusal("sums.jsonl", folder, hold_out=6)


def test_columns_that_do_not_exist(folder):
    assert "row 0 has no column 'question' to call 'prompt' (task.columns); it has prompt, answer, level" in refusal(
        "sums.jsonl", folder, columns={"prompt": "question"}
    )
    (folder / "a.jsonl").write_text(lines([{"prompt": "a"}, {"question": "b"}]))
    assert "a/train, row 1 has no column 'prompt'; it has question" in refusal("a.jsonl", folder)


def test_a_hub_that_does_not_answer_is_told_at_once(folder, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        start = time.perf_counter()
        message = refusal("someone/surely-not-a-dataset", folder)
    assert time.perf_counter() - start < 10
    assert "cannot be reached (" in message
    assert "HF_ENDPOINT names a mirror. Check the id" in message
    assert (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE) == (False, False)


def test_the_hub_out_of_reach_is_one_message(folder):
    message = refusal("someone/surely-not-a-dataset", folder, name="main")
    assert "split 'train' of 'someone/surely-not-a-dataset' (configuration main) could not be loaded" in message
    assert "give the path of a folder of files" in message


def test_a_task_is_built_from_the_settings_of_its_section(folder):
    assert set(TASKS) == set(task_kinds())
    data = Path(__file__).parents[1] / "data"
    assert build_task("gsm8k", {"path": "gsm8k"}, seed=0, folder=data) == gsm8k(path="gsm8k", folder=data)
    built = build_task("arithmetic", {"digits": 2, "train_size": 5, "eval_size": 5}, seed=1, folder=folder)
    assert built.train == TASKS["arithmetic"](digits=2, train_size=5, eval_size=5, seed=1).train
    assert len(build_task("dataset", {"path": "sums.jsonl"}, seed=0, folder=folder).train) == 6
    with pytest.raises(TaskError, match="no task of the kind 'sums'"):
        build_task("sums", {}, seed=0, folder=folder)
