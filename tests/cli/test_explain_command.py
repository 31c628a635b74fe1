"""`groupwise explain`: a real step, in the terminal and as a page."""

import pytest
from rich.cells import cell_len

from groupwise.cli.wrapping import wrapped
from groupwise.explain.words import words


def test_it_tells_the_worked_example_and_writes_the_page(groupwise, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    ended = groupwise("explain", "--html", "pages/step.html", "--language", "zh")
    assert ended.code == 0, ended.err
    assert "(1 - 0.5) / (0.5345 + 0.0001) = +0.9352" in ended.out
    assert ended.out.count("+0.94") >= 8 and ended.out.count("-0.94") >= 8
    assert "概率比到底怎么算" in ended.out
    assert (tmp_path / "pages" / "step.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir()] == ["pages"], "it leaves nothing else behind"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["algorithm.preset=grop"], "grop"),
        (["train.groupsize=4"], "group_size"),
        (["--draw", "0"], "--draw"),
    ],
)
def test_a_mistake_is_one_message(groupwise, arguments, says):
    ended = groupwise("explain", *arguments)
    assert ended.code == 1
    assert says in ended.err and "Traceback" not in ended.err


def test_chinese_breaks_between_characters_and_before_no_mark():
    assert wrapped("比值是 ratio，不变", 10) == "比值是\nratio，不\n变"
    assert wrapped("一二三四，五", 8) == "一二三\n四，五", "no line begins with a comma"
    assert wrapped("一二三（四）", 8) == "一二三\n（四）", "nor ends with what opens"
    assert wrapped("no Chinese in it at all", 4) == "no Chinese in it at all"
    told = words("zh")["ratio_text"]
    lines = wrapped(told, 60).splitlines()
    assert all(cell_len(line) <= 60 for line in lines)
    assert min(cell_len(line) for line in lines[:-1]) > 48
    assert "".join(lines).replace(" ", "") == told.replace(" ", "")
