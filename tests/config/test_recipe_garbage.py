"""Whatever is written into a recipe: it loads, or it is refused with one RecipeError. There is no third way."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from groupwise.config import load_recipe, schema_rows
from groupwise.errors import RecipeError

SECTIONS = ["model", "task", "rewards", "lora", "train", "algorithm", "optimizer", "run", "seed", "evaluation"]
KEYS = sorted({row.name.rsplit(".", 1)[-1] for row in schema_rows()})
WORDS = ["grpo", "dapo", "gsm8k", "dataset", "none", "x", "[", "{}", "1", "true", "\udc80", ""]

atoms = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(WORDS), st.text(), st.dates(), st.binary()
)
names = st.sampled_from(KEYS) | st.text() | st.integers()
trees = st.recursive(
    atoms,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
recipes = st.dictionaries(st.sampled_from(SECTIONS) | names, trees, max_size=6)
dotted_names = st.lists(st.sampled_from([*SECTIONS, *KEYS, "0", "1", '"a b"', "-"]), min_size=1, max_size=4).map(
    ".".join
)
overrides = st.tuples(dotted_names, st.sampled_from(["=", "", " = "]), st.sampled_from(WORDS) | st.text()).map("".join)


def tried(source, given_overrides=()):
    try:
        return load_recipe(source, given_overrides)
    except RecipeError as error:
        assert str(error).strip()
        return None


@given(recipes, st.lists(overrides | st.text(), max_size=4))
@example({"task": {"kind": []}}, [])
@example({"task": {"kind": None}, "algorithm": {"preset": []}}, ["lora=none", "lora=none"])
@example({"rewards": [{"settings": {"a": {1: 2}}}]}, ["rewards.0.settings.a.1=2"])
def test_any_mapping_and_any_overrides(source, given_overrides):
    tried(source, given_overrides)
    tried({"model": {"id": "x"}, "task": {"kind": "gsm8k"}} | source, given_overrides)


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_file(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("garbage") / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError):
        load_recipe(path)


@given(st.lists(overrides, max_size=6))
def test_what_loads_can_be_written_and_loads_again(tmp_path_factory, given_overrides):
    loaded = tried({"model": {"id": "x"}, "task": {"kind": "gsm8k"}}, given_overrides)
    if loaded is not None:
        path = tmp_path_factory.mktemp("again") / "recipe.toml"
        path.write_text(loaded.to_toml(), encoding="utf-8", newline="")
        assert load_recipe(path).recipe == loaded.recipe
