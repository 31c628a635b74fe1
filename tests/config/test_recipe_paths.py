"""Where relative paths start: a recipe's in its folder, those of the command line where the command runs."""

from pathlib import Path

import pytest

from groupwise.config import load_recipe

RECIPE = 'model.id = "small"\nsft.path = "shown.jsonl"\n[task]\nkind = "dataset"\npath = "data"\n'


@pytest.fixture
def away(tmp_path, monkeypatch):
    """A working folder with everything that the recipe names, and the recipe in another one."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "recipe.toml").write_text(RECIPE)
    for name in ("small", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "shown.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paths_of(recipe):
    return recipe.model.id, recipe.task.path, recipe.sft.path


def test_paths_of_the_file_stay_as_they_are_and_start_in_its_folder(away):
    loaded = load_recipe("recipes/recipe.toml")
    assert loaded.folder == away / "recipes"
    assert paths_of(loaded.recipe) == ("small", "data", "shown.jsonl")


@pytest.mark.parametrize("dots", ["", "./", "recipes/../"])
def test_paths_of_the_command_line_start_where_the_command_runs(away, dots):
    overrides = [f"model.id={dots}small", f"task.path={dots}data", f"sft.path={dots}shown.jsonl"]
    loaded = load_recipe("recipes/recipe.toml", overrides)
    assert [Path(path).resolve() for path in paths_of(loaded.recipe)] == [
        away / "small",
        away / "data",
        away / "shown.jsonl",
    ]
    assert all(Path(path).is_absolute() for path in paths_of(loaded.recipe))
    assert loaded.origins["task.path"] == "command line"


def test_a_whole_table_of_the_command_line_too(away):
    loaded = load_recipe("recipes/recipe.toml", ['task={kind = "dataset", path = "data"}'])
    assert loaded.recipe.task.path == str(away / "data")


def test_ids_of_the_hub_stay_ids(away):
    (away / "gpt2").touch()  # a file is no model
    overrides = ["model.id=gpt2", "task.path=openai/gsm8k", f"sft.path={'x' * 5000}"]
    assert paths_of(load_recipe("recipes/recipe.toml", overrides).recipe) == ("gpt2", "openai/gsm8k", "x" * 5000)


def test_what_is_not_there_is_missed_where_the_command_runs(away):
    recipe = load_recipe("recipes/recipe.toml", ["task.path=./nothing", "sft.path=none.jsonl"]).recipe
    assert paths_of(recipe)[1:] == (str(away / "nothing"), str(away / "none.jsonl"))
