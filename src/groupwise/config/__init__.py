"""The recipe: one pydantic section per room, strict; loaded from TOML with overrides and presets, each value with its
origin. `schema_rows` and `section_doc` tell documentation and `groupwise init` what there is to set."""

from __future__ import annotations

from groupwise.config.load import LoadedRecipe, load_recipe
from groupwise.config.presets import PRESETS
from groupwise.config.recipe import Recipe
from groupwise.config.schema import SchemaRow, schema_rows, section_doc

__all__ = ["PRESETS", "LoadedRecipe", "Recipe", "SchemaRow", "load_recipe", "schema_rows", "section_doc"]
