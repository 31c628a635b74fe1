"""Runs the code of a page of documentation: every fenced block, top to bottom, as a reader would, in one empty folder.

What a block is, says the word behind its fence; there is no word for "do not run":

    python      a program; runs as it is
    bash        commands, a line each: `groupwise ...` runs, the few others are checked (see `Page._other`)
    toml        a recipe (whole if it has a [model]; else every setting is looked up) or a part of one
    yaml        settings of another trainer
    jsonl       rows: valid JSON; every file type with a title, ```toml title="a.toml"```, is also written
    text        what a command prints, or a formula

A comment above a block makes it smaller, never different: `<!-- run: train.steps=1 -->` puts settings behind the
commands of the block, `<!-- swap: A => B -->` replaces words of a program. Models and data that a page names by their
id on the hub lie in the folder under that id, small.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from groupwise.cli.main import main
from groupwise.config import load_recipe
from groupwise.config.names import leaves
from groupwise.config.schema import find
from groupwise.models.small import write_small_model

ROOT = Path(__file__).parents[2]
FENCE = re.compile(
    r"(?P<notes>(?:^<!-- (?:run|swap): .*? -->\n)*)^(?P<indent> *)```(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)
MODELS = ("Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct")
SMALL = """
[model]
id = "Qwen/Qwen2.5-0.5B-Instruct"
[task]
kind = "arithmetic"
digits = 1
train_size = 20
eval_size = 4
[[rewards]]
function = "correctness"
"""


@dataclass(frozen=True)
class Block:
    """One fenced block and the comments above it."""

    line: int
    word: str
    title: str | None
    body: str
    settings: list[str]
    swaps: list[tuple[str, str]]


def blocks_of(text: str) -> list[Block]:
    """All fenced blocks, in order."""
    found = []
    for match in FENCE.finditer(text):
        notes = re.findall(r"<!-- (run|swap): (.*?) -->", match["notes"])
        title = re.search(r'title="([^"]+)"', match["info"])
        indent = len(match["indent"])
        found.append(
            Block(
                line=text[: match.start("info")].count("\n") + 1,
                word=match["info"].split()[0] if match["info"].split() else "",
                title=title[1] if title else None,
                body="".join(line[indent:] for line in match["body"].splitlines(keepends=True)),
                settings=[setting for kind, said in notes if kind == "run" for setting in shlex.split(said)],
                swaps=[tuple(said.split(" => ")) for kind, said in notes if kind == "swap"],
            )
        )
    return found


class Page:
    """A reader of one page: runs its blocks in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in MODELS:
            write_small_model(folder / name, hidden=32, layers=2, heads=2, context=2048)
        data = folder / "openai" / "gsm8k"
        shutil.copytree(ROOT / "tests" / "data" / "gsm8k", data)
        (folder / "recipe.toml").write_text(SMALL)
        write_small_model(folder / "runs" / "demo-warm-start" / "model", hidden=32, layers=2, heads=2)
        self.ran = 0

    def run(self, block: Block) -> None:
        """Run one block; raises if it does not do what a reader expects."""
        text = block.body
        for old, new in block.swaps:
            assert old in text, f"nothing to swap: {old!r}"
            text = text.replace(old, new)
        if block.title is not None:
            path = self.folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        with chdir(self.folder):
            {
                "python": self._python,
                "bash": self._bash,
                "toml": self._toml,
                "jsonl": self._jsonl,
                "yaml": lambda text, _: yaml.safe_load(text).items(),
                "text": lambda text, _: None,
            }[block.word](text, block)
        self.ran += 1

    def _python(self, text: str, block: Block) -> None:
        if block.title is None or block.title.endswith("train.py"):
            path = self.folder / f"block_{block.line}.py"
            path.write_text(text, encoding="utf-8")
            before = list(sys.path)
            try:
                sys.path.insert(0, str(self.folder))
                runpy.run_path(str(path), run_name="__main__")
            finally:
                sys.path[:] = before
        else:
            compile(text, block.title, "exec")

    def _bash(self, text: str, block: Block) -> None:
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if not words:
                continue
            if words[0] == "groupwise":
                self._groupwise(words[1:], block.settings)
            else:
                self._other(words)

    def _groupwise(self, arguments: list[str], settings: list[str]) -> None:
        verbs = ("train", "sft", "eval", "explain", "sample", "check")
        extra = settings if arguments and arguments[0] in verbs else []
        code = main([*arguments, *extra])
        assert code == 0, f"groupwise {' '.join(arguments)} ended with {code}"

    def _other(self, words: list[str]) -> None:
        """What is no command of groupwise: installed, built and looked at otherwise, so only checked."""
        if words[0] == "make":
            targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert words[1] in targets, f"there is no make {words[1]}"
        elif words[:2] == ["pip", "install"]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            for word in words[2:]:
                for name in re.findall(r"\[(.*?)\]", word):
                    assert set(name.split(",")) <= set(extras), f"there is no extra {name}"
        elif words[:2] == ["python", "bench/run.py"] or words[0] == "python":
            assert (ROOT / words[1]).is_file() or (self.folder / words[1]).is_file(), words
        elif words[0] in ("cd", "git"):
            assert len(words) > 1
        else:
            pytest.fail(f"nobody knows how to run or to check: {shlex.join(words)}")

    def _toml(self, text: str, block: Block) -> None:
        tree = tomllib.loads(text)
        if "model" in tree:
            path = self.folder / (block.title or f"block_{block.line}.toml")
            path.write_text(text, encoding="utf-8")
            load_recipe(path)
            return
        kind = tree.get("task", {}).get("kind")
        for name, _ in leaves(tree):
            assert find(name, kind) is not None, f"there is no setting {name}"

    def _jsonl(self, text: str, block: Block) -> None:
        rows = [json.loads(line) for line in text.splitlines()]
        assert rows and all(isinstance(row, dict) for row in rows)
