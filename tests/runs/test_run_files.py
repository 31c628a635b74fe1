"""Whole files by rename, rows by appending; nothing half is ever read."""

import json
import math
import os

import pytest

from groupwise.errors import RunError
from groupwise.runs.files import append_row, read_rows, replacing, to_json, write_text
from groupwise.runs.metrics import MetricsLog


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "run.json"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    write_text(path, "new \ud800")
    assert path.read_text() == "new \\ud800"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_who_reads_the_old_file_reads_it_to_its_end(tmp_path):
    path = tmp_path / "run.json"
    write_text(path, "old and whole")
    with path.open() as reader:
        start = reader.read(3)
        write_text(path, "new")
        assert start + reader.read() == "old and whole"
    assert path.read_text() == "new"


def test_a_file_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write .*file.deep.* a file is in the way"):
        write_text(tmp_path / "file" / "deep", "x")
    with pytest.raises(RunError, match=r"cannot write .*metrics"):
        append_row(tmp_path / "absent" / "metrics.jsonl", {})


def test_json_has_no_nan_and_no_infinity():
    assert json.loads(to_json({"a": math.nan, "b": [math.inf, -math.inf, 1.5], "c": True, "d": {1}})) == {
        "a": None,
        "b": [None, None, 1.5],
        "c": True,
        "d": "{1}",
    }


def test_numbers_of_numpy_stay_numbers():
    numpy = pytest.importorskip("numpy")
    assert to_json({"a": numpy.float32(0.5), "b": numpy.int64(3)}) == '{"a": 0.5, "b": 3}'


def test_rows_with_text_that_is_no_unicode(tmp_path):
    path = tmp_path / "evals.jsonl"
    append_row(path, {"text": "lone \ud800, 你好"})
    assert "你好".encode() in path.read_bytes()
    assert read_rows(path) == [{"text": "lone \ud800, 你好"}]


def test_metrics_are_read_back(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert log.read() == []
    log.append(1, {"reward": 0.25, "kl": math.nan})
    log.append(2, {"reward": 0.5, "kl": math.inf, "step": 99})
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"step": 1, "reward": 0.25, "kl": null}\n{"step": 2, "reward": 0.5, "kl": null}\n'
    )
    assert log.read() == [{"step": 1, "reward": 0.25, "kl": None}, {"step": 2, "reward": 0.5, "kl": None}]
    assert log.series("reward") == [(1, 0.25), (2, 0.5)]
    assert log.series("kl") == []


@pytest.mark.parametrize("torn", ['{"step": 2, "rew', '{"step": 2}garbage', "{", "\x00\x00"])
def test_a_torn_last_line_is_skipped_and_then_mended(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + torn)
    assert [row["step"] for row in read_rows(path)] == [1]
    append_row(path, {"step": 2})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_whole_last_line_without_its_newline_is_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}')
    append_row(path, {"step": 2})
    assert [row["step"] for row in read_rows(path)] == [1, 2]


def test_every_cut_of_a_file_loses_only_the_last_row(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2, 3):
        append_row(path, {"step": step, "reward": step / 4})
    whole = path.read_bytes()
    line = len(whole) // 3 + 1
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        steps = [row["step"] for row in read_rows(path)]
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) >= cut // line


def test_damage_in_the_middle_is_an_error_that_names_the_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl:2 "):
        read_rows(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
    path = tmp_path / "metrics.jsonl"
    os.mkfifo(path)
    with pytest.raises(RunError, match=r"metrics\.jsonl is a pipe or a device"):
        read_rows(path)
    with pytest.raises(RunError, match=r"cannot write .*metrics\.jsonl: a pipe is in the way"):
        append_row(path, {"step": 1})
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(RunError, match="a pipe is in the way"):
        append_row(path, {"step": 1})
    os.close(reader)
    write_text(path, "a whole file takes its place")
    assert path.is_file()
