"""Load a recipe: a TOML file or a mapping, overrides on top, the preset below, then one check of all of it.

loaded = load_recipe("recipe.toml", ["optimizer.lr=2e-5"])
loaded.recipe.optimizer.lr      2e-05
loaded.origins["optimizer.lr"]  "command line"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from groupwise.config.draft import Draft
from groupwise.config.idle import note_idle
from groupwise.config.names import leaves
from groupwise.config.overrides import apply_override
from groupwise.config.paths import root_overrides
from groupwise.config.presets import fill_preset
from groupwise.config.recipe import Recipe
from groupwise.config.report import explain, note_unwritable
from groupwise.config.source import from_file, from_mapping
from groupwise.config.write import to_toml


@dataclass(frozen=True, slots=True)
class LoadedRecipe:
    """A recipe, the origin of each of its values by dotted name, and the folder where its relative paths start."""

    recipe: Recipe
    origins: Mapping[str, str]
    folder: Path

    def to_toml(self) -> str:
        """The resolved recipe, each value with its origin as a comment; it loads again to the same recipe."""
        return to_toml(self.recipe, self.origins, self.folder)


def load_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Load, complete and check a recipe. Raises one RecipeError that lists all that is wrong with it.

    The algorithm's entries (`algorithm.advantage`, ...) are looked up in the tables of `groupwise.maths`, which config
    does not know, when the algorithm is made: before a run begins, but not here.
    """
    if isinstance(source, Mapping):
        draft, folder = from_mapping(source), Path.cwd()
    else:
        draft, folder = from_file(Path(source)), Path(source).absolute().parent
    for override in overrides:
        apply_override(draft, override)
    for section in ("model", "task"):
        # Where the whole table is missing, its own required settings are what the user has to add.
        draft.tree.setdefault(section, {})
    root_overrides(draft)
    fill_preset(draft)
    recipe = _checked(draft)
    return LoadedRecipe(recipe, draft.origins_of(name for name, _ in leaves(recipe.model_dump())), folder)


def _checked(draft: Draft) -> Recipe:
    note_unwritable(draft)
    recipe = None
    try:
        recipe = Recipe.model_validate(draft.tree)
        note_idle(recipe, draft)
    except ValidationError as error:
        explain(error, draft)
    draft.raise_mistakes()
    assert recipe is not None, "pydantic refused a recipe, and no mistake was noted"
    return recipe
