"""Every command on the page of a recipe: those of a CPU run, smaller; those of a GPU load with all that they say."""

import re
import runpy
import shlex
import shutil
import sys
from contextlib import chdir
from pathlib import Path

import pytest

from groupwise.cli.main import main
from groupwise.config import load_recipe
from groupwise.config.schema import find, task_kinds

ROOT = Path(__file__).parents[2]
PAGES = sorted(ROOT.glob("recipes/*/README.md"))
RUN = ("guess", "calculator")
"""gsm8k-mini has tests of its own, and the tutorials' recipes run on a stand-in for the hub (tests/hub)."""


def commands(page):
    """The lines of its blocks, and the settings that make those of a block small."""
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"^    (groupwise|python) ", text, re.MULTILINE), "a command that is in no block"
    for small, block in re.findall(r"(?:^<!-- run: (.*?) -->\n)?^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if words := shlex.split(line, comments=True):
                yield words, shlex.split(small)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_command_names_what_there_is(page):
    found = list(commands(page))
    assert found
    for (program, *words), _ in found:
        if program == "python":
            assert (ROOT / words[0]).is_file()
            continue
        assert program == "groupwise"
        verb, subject, *settings = words
        if subject.endswith(".toml"):
            load_recipe(ROOT / subject, settings)
        else:
            assert (verb, Path(subject).parent) == ("eval", Path("runs"))
            names = [tuple(setting.partition("=")[0].split(".")) for setting in settings]
            assert all(any(find(name, kind) for kind in task_kinds()) for name in names)


@pytest.mark.parametrize("name", RUN)
def test_a_recipe_of_a_cpu_from_the_first_command_to_the_last(name, tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "recipes" / name, tmp_path / "recipes" / name)
    with chdir(tmp_path):
        for (program, *words), small in commands(ROOT / "recipes" / name / "README.md"):
            if program == "python":
                monkeypatch.setattr(sys, "argv", words)
                runpy.run_path(words[0], run_name="__main__")
            else:
                assert main([*words, *small]) == 0, capsys.readouterr().err[-2000:]
                if words[0] == "sft":
                    assert (
                        f"train it by rewards  groupwise train recipes/{name}/recipe.toml\n" in capsys.readouterr().out
                    )
    assert (tmp_path / "runs" / name / "model" / "model.safetensors").is_file()
