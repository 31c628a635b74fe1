"""The notebook: every cell runs, in order, in one namespace, with fewer steps; it holds no output of a run."""

import json
import re
from contextlib import chdir

from docs_blocks import ROOT

NOTEBOOK = ROOT / "docs" / "notebooks" / "grpo.ipynb"
SMALLER = {
    "warm_steps = 300": "warm_steps = 3",
    "hidden=96, layers=3": "hidden=32, layers=2",
    "steps = 40": "steps = 2",
    '"train.prompts_per_step": 8': '"train.prompts_per_step": 2',
    '"train.group_size": 8': '"train.group_size": 4',
    '"evaluation.problems": 64': '"evaluation.problems": 4',
    '"eval_size": 128': '"eval_size": 8',
}


def cells(kind):
    book = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert book["nbformat"] == 4
    return ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == kind]


def test_every_cell_runs(tmp_path, capsys):
    text = "\n\n".join(cells("code"))
    for large, small in SMALLER.items():
        assert text.count(large) >= 1, large
        text = re.sub(rf"(?<![\w]){re.escape(large)}(?!\d)", small, text)
    program = tmp_path / "notebook.py"
    program.write_text(text, encoding="utf-8")
    names: dict = {"__name__": "__main__"}
    with chdir(tmp_path):
        exec(compile(text, str(program), "exec"), names)  # noqa: S102 - our own file
        assert len(names["run"].metrics.read()) == 2
    said = capsys.readouterr().out
    assert "held-out problems right:" in said
    assert said.count("prompt:") >= 3
    assert (tmp_path / "notebook-runs" / "step.html").is_file()
    assert names["on_gpu"] or names["base"].endswith("model")


def test_no_output_is_kept_and_nothing_is_hidden_in_a_magic():
    book = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert all(cell.get("outputs", []) == [] for cell in book["cells"])
    assert not any(line.startswith(("!", "%")) for source in cells("code") for line in source.splitlines())
