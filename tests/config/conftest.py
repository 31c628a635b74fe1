from pathlib import Path

import pytest

from groupwise.config import LoadedRecipe, load_recipe
from groupwise.errors import RecipeError

SMALLEST = 'model.id = "me/tiny"\ntask.kind = "gsm8k"\n'


class Desk:
    """A folder with a recipe.toml in it, as a user has it; everything is run from there."""

    def __init__(self, folder: Path):
        self.folder = folder

    def load(self, text: str, *overrides: str) -> LoadedRecipe:
        (self.folder / "recipe.toml").write_text(text, encoding="utf-8")
        return load_recipe("recipe.toml", overrides)

    def complaints(self, text: str, *overrides: str) -> list[str]:
        with pytest.raises(RecipeError) as caught:
            self.load(text, *overrides)
        return str(caught.value).split("\n")


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path)


@pytest.fixture
def smallest():
    return SMALLEST
