"""The README's claims that can be checked: its tree is the tree, its recipes load. Its commands run in tests/docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from groupwise.config import load_recipe
from groupwise.rewards.load import BUILT_IN

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = README.split("```")[1::2]


def test_the_reward_is_one_and_the_built_in_ones_are_named():
    program = next(block for block in BLOCKS if "def states_it" in block).removeprefix("python\n")
    names: dict = {}
    exec(compile(program, "README.md", "exec"), names)  # noqa: S102 - our own file
    talk = [[{"role": "assistant", "content": "It is 24."}], "25"]
    assert names["states_it"](prompts=["?"] * 2, completions=talk, answer=["24", "24"]) == [1.0, 0.0]
    said = README[README.index("Built in are") : README.index("## A script")]
    assert set(re.findall(r"`(\w+)`", said)) == set(BUILT_IN)


def test_the_tree_names_every_room_and_no_other():
    tree = next(block for block in BLOCKS if block.startswith("text\nsrc/groupwise/")).strip()
    named = {line.split()[0] for line in tree.splitlines()[2:]}
    source = ROOT / "src" / "groupwise"
    rooms = {f"{path.parent.name}/" for path in source.glob("*/__init__.py")}
    assert named == rooms | {"types.py", "errors.py"}


@pytest.mark.parametrize("recipe", sorted(ROOT.glob("recipes/*/recipe.toml")), ids=lambda path: path.parent.name)
def test_every_recipe_loads_and_has_a_page(recipe):
    load_recipe(recipe)
    assert "Number to expect" in (recipe.parent / "README.md").read_text(encoding="utf-8")
