"""What `make bench` is asked for: refused in one sentence before anything is measured. And its page is its own."""

import shutil
import sys
from pathlib import Path

import pytest

import run

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--only", "W9"],
            "--only W9: there is W0, W1, W2, W3, W4, W5, compare, floor, growth, group, group_at_fixed_length, prompt, "
            "cap, vocabulary, settings, tables",
        ),
        (["--only", "W1", "--steps", "0"], "--steps 0: at least one step has to count"),
    ],
)
def test_nonsense_is_refused(options, message, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["run.py", *options, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        run.main()
    assert ended.value.code == message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("only", "workloads", "parts"),
    [
        ([], ["W0", "W1", "W2", "W3", "W4", "W5"], ["compare", "floor", "growth", *run.AXES]),
        (["W5", "W1"], ["W1", "W5"], []),
        (["floor", "W2"], ["W2"], ["floor"]),
        (["growth"], [], ["growth", *run.AXES]),
        (["prompt"], [], ["prompt"]),
        (["tables"], [], ["tables"]),
    ],
)
def test_what_is_asked_for_is_measured(only, workloads, parts):
    assert run.chosen(only) == (workloads, parts)


def test_the_page_is_what_the_code_makes_of_the_figures(monkeypatch, tmp_path):
    """Where this fails after a change of tables.py: `make bench ARGS="--only tables"`."""
    page = shutil.copy(DOCS / "measurements.md", tmp_path)
    shutil.copytree(DOCS / "measured", tmp_path / "measured")
    monkeypatch.setattr(run, "draw", lambda *_: None)
    run.write(tmp_path)
    assert Path(page).read_text(encoding="utf-8") == (DOCS / "measurements.md").read_text(encoding="utf-8")
