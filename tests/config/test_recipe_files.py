"""Reading: what is no recipe file ends as one RecipeError that says which file, which line, and what to do."""

from pathlib import Path

import pytest

from groupwise.config import load_recipe
from groupwise.errors import RecipeError


def refusal(source) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(source)
    return str(caught.value)


def test_folder_is_where_the_recipe_lies_whatever_the_current_folder(desk, smallest):
    inner = desk.folder / "inner"
    inner.mkdir()
    (inner / "r.toml").write_text(smallest)
    assert load_recipe("inner/r.toml").folder == inner
    assert load_recipe(inner / "r.toml").folder == inner
    assert load_recipe({"model": {"id": "x"}, "task": {"kind": "gsm8k"}}).folder == Path.cwd() == desk.folder


def test_missing_file(desk, smallest):
    assert refusal("recipe.toml") == (
        "recipe.toml  there is no such file. `groupwise init` writes a recipe to start from"
    )
    (desk.folder / "recipe.toml").write_text(smallest)
    assert refusal("recpie.toml") == "recpie.toml  there is no such file. Did you mean recipe.toml?"
    assert refusal("no/such/folder.toml").startswith("no/such/folder.toml  there is no such file. ")


def test_folder_in_place_of_a_file(desk, smallest):
    (desk.folder / "mine").mkdir()
    assert refusal("mine") == "mine  this is a folder, a recipe is a file. Name the TOML file in it"
    (desk.folder / "mine" / "recipe.toml").write_text(smallest)
    assert refusal("mine") == "mine  this is a folder, a recipe is a file. Did you mean mine/recipe.toml?"


def test_file_that_cannot_be_read(desk, smallest):
    (desk.folder / "recipe.toml").write_text(smallest)
    assert refusal("recipe.toml/inner.toml") == (
        "recipe.toml/inner.toml  cannot be read: [Errno 20] Not a directory: 'recipe.toml/inner.toml'"
    )


def test_path_that_no_file_can_have():
    assert refusal("a\0b").endswith("cannot be read: embedded null byte")


def test_not_utf8(desk):
    (desk.folder / "recipe.toml").write_bytes("seed = 1\nrun.name = 'm\xfcll'".encode("latin-1"))
    assert refusal("recipe.toml") == "recipe.toml:2  this is not UTF-8. Save the file as UTF-8 text"
    (desk.folder / "recipe.toml").write_text("seed = 1", encoding="utf-16")
    assert refusal("recipe.toml") == "recipe.toml:1  this is not UTF-8. Save the file as UTF-8 text"


def test_a_byte_order_mark_and_dos_line_ends_are_no_mistake(desk, smallest):
    text = smallest + "train.steps = 5\n"
    (desk.folder / "recipe.toml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    loaded = load_recipe("recipe.toml")
    assert loaded.recipe.train.steps == 5
    assert loaded.origins["train.steps"] == "recipe.toml:3"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("[model]\nid = me/tiny\n", 2, "Invalid value"),
        ("[train]\nsteps = 1\nsteps = 2\n", 3, "Cannot overwrite a value"),
        ("[train]\nsteps = 5 group_size = 4\n", 2, "Expected newline or end of document after a statement"),
        ("[train]\n[sampling\n", 2, ""),
        ("[train]\nsteps = 1\nstop = [1,\n\n", 3, ""),
    ],
)
def test_invalid_toml_names_its_line(desk, text, line, reason):
    (desk.folder / "recipe.toml").write_text(text)
    message = refusal("recipe.toml")
    assert message.startswith(f"recipe.toml:{line}  not valid TOML: {reason}")
    assert message.endswith(". Texts need quotes, each setting its own line")


def test_toml_that_python_cannot_take(desk):
    (desk.folder / "recipe.toml").write_text(f"seed = {'1' * 10_000}")
    assert refusal("recipe.toml").startswith("recipe.toml  not valid TOML: ")


@pytest.mark.parametrize("depth", [41, 300, 100_000])
def test_nesting_that_no_setting_needs(desk, depth):
    deep = "[" * depth + "]" * depth
    (desk.folder / "recipe.toml").write_text(f"seed = {deep}")
    message = "  not a recipe: tables and lists stand in each other deeper than any setting needs"
    assert refusal("recipe.toml") == "recipe.toml" + message
    circle = {}
    circle["seed"] = circle
    assert refusal(circle) == "in code" + message


def test_depth_that_a_setting_may_need(desk, smallest):
    deep = "[" * 35 + "]" * 35
    loaded = desk.load(smallest + f"rewards = [{{function = 'f', settings = {{x = {deep}}}}}]")
    assert f"settings.x = {deep}  # recipe.toml:3" in loaded.to_toml()
