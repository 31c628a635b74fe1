"""A run that came from elsewhere: what leads out of its folder is refused, and nothing outside is written to."""

import json

import pytest

from groupwise.config import load_recipe
from groupwise.errors import RunError
from groupwise.runs.entrance import enter
from groupwise.runs.folder import RunFolder

RECIPE = {"model": {"id": "tiny"}, "task": {"kind": "arithmetic"}}


def entered(root, name="demo"):
    return enter(root, name, load_recipe(RECIPE), "train", {})


@pytest.fixture
def left(tmp_path):
    """A run that was left, and a home with something in it."""
    entered(tmp_path).close("interrupted")
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".bashrc").write_text("mine\n")
    return tmp_path / "demo", home


@pytest.mark.parametrize(("name", "target"), [("log", ".bashrc"), ("checkpoints", "."), ("evals/a/b", ".ssh")])
def test_links_of_a_run_that_was_moved_are_refused(left, name, target):
    run, home = left
    link = run / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(home / target)
    moved = run.rename(run.with_name("moved"))
    with pytest.raises(RunError, match=f"moved/{name} in it is a link to"):
        entered(moved.parent, "moved")
    assert sorted(path.name for path in home.iterdir()) == [".bashrc", ".ssh"]
    assert (home / ".bashrc").read_text() == "mine\n"
    assert not (moved / "lock").exists()


def test_links_of_ones_own_stay(left):
    run, home = left
    (run / "checkpoints").symlink_to(home)
    entered(run.parent).close("interrupted")
    assert (run / "checkpoints").is_symlink()


def test_a_record_of_another_size_is_not_read(left):
    run, _ = left
    (run / "run.json").write_text(json.dumps({"format": 1, "x": "y" * (17 << 20)}))
    with pytest.raises(RunError, match=r"17,825,\d{3} bytes, more than any"):
        RunFolder.open(run)


def test_a_recipe_that_no_parser_gets_to_the_end_of(left):
    run, _ = left
    (run / "recipe.toml").write_text("a=" + "[" * 5000)
    with pytest.raises(RunError, match=r"cannot read .*recipe\.toml"):
        entered(run.parent)
