"""The resolved recipe: every setting once, each with where it came from, and it loads again to the same recipe."""

import tomllib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from groupwise.config import LoadedRecipe, Recipe, load_recipe
from groupwise.config.names import dotted, leaves
from groupwise.config.sections import ModelSection, TrainSection


def test_a_resolved_recipe_line_by_line(desk):
    text = """
model.id = "me/tiny"
[task]
kind = "arithmetic"
[[rewards]]
function = "length"
settings = {target = 50, "odd key" = [1, "a"]}
[algorithm]
preset = "dapo"
"""
    lines = desk.load(text, "train.steps=5", "lora={r = 8}").to_toml().splitlines()
    assert lines[:6] == [
        "# The whole recipe of a run: every setting, and where its value came from.",
        f"# Relative paths start in {desk.folder}",
        "",
        "seed = 0  # default",
        "",
        "[train]",
    ]
    expected = """
steps = 5  # command line
group_size = 8  # default
id = "me/tiny"  # recipe.toml:2
# revision is unset (default)
[lora]
r = 8  # command line
alpha = 32.0  # default
kind = "arithmetic"  # recipe.toml:4
operations = ["+"]  # default
[[rewards]]
function = "length"  # recipe.toml:6
weight = 1.0  # default
settings.target = 50  # recipe.toml:7
settings."odd key" = [1, "a"]  # recipe.toml:7
stop = []  # default
preset = "dapo"  # recipe.toml:9
weights = "token_mean"  # preset dapo
lr = 1e-06  # default
betas = [0.9, 0.999]  # default
""".strip().splitlines()
    places = [lines.index(line) for line in expected]
    assert places == sorted(places)


def test_what_is_unset_stands_as_a_comment(desk, smallest):
    lines = desk.load(smallest, "lora=none").to_toml().splitlines()
    assert "# lora is unset (command line)" in lines
    assert "rewards = []  # default" in lines
    assert lines.index("rewards = []  # default") < lines.index("[train]")


def test_every_setting_has_one_origin_and_one_line(desk, smallest):
    loaded = desk.load(smallest, "lora.r=4", "rewards.0.function=f")
    names = [dotted(name) for name, _ in leaves(loaded.recipe.model_dump())]
    assert list(loaded.origins) == names
    assert len([line for line in loaded.to_toml().splitlines() if " = " in line or " is unset (" in line]) == len(names)


def test_sections_made_in_code_count_as_given():
    loaded = load_recipe(
        {
            "model": ModelSection(id="x"),
            "task": {"kind": "gsm8k"},
            "train": TrainSection(steps=3),
            "sampling": {"stop": ("a",)},
        }
    )
    assert loaded.recipe.train.steps == 3
    assert loaded.recipe.sampling.stop == ["a"]
    assert loaded.origins["train.steps"] == "in code"
    assert loaded.origins["train.group_size"] == "default"


def test_odd_file_names_do_not_break_the_record(desk, smallest):
    name = "a\nb\x1b.toml"
    (desk.folder / name).write_text(smallest)
    loaded = load_recipe(name)
    assert tomllib.loads(loaded.to_toml())["model"]["id"] == "me/tiny"
    assert 'id = "me/tiny"  # a?b?.toml:1' in loaded.to_toml()
    assert tomllib.loads(LoadedRecipe(loaded.recipe, {}, Path("/x\ny\udc80")).to_toml())["seed"] == 0


scalars = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.dates())
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=10
)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)

recipes = st.fixed_dictionaries(
    {
        "model": st.fixed_dictionaries(
            {"id": st.text(min_size=1)},
            optional={"revision": st.none() | st.text(), "dtype": st.sampled_from(["auto", "bf16"])},
        ),
        "task": st.one_of(
            st.fixed_dictionaries({"kind": st.just("arithmetic"), "digits": st.integers(1, 12)}),
            st.fixed_dictionaries(
                {"kind": st.just("dataset"), "path": st.text(min_size=1)},
                optional={"columns": st.dictionaries(st.text(), st.text(), max_size=3), "system_prompt": st.text()},
            ),
        ),
    },
    optional={
        "seed": st.integers(0, 2**32 - 1),
        "lora": st.fixed_dictionaries({}, optional={"alpha": positive, "targets": st.text() | st.lists(st.text())}),
        "rewards": st.lists(
            st.fixed_dictionaries(
                {"function": st.text(min_size=1)},
                optional={
                    "weight": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
                    "settings": st.dictionaries(st.text(), values, max_size=3),
                },
            ),
            max_size=3,
        ),
        "sampling": st.fixed_dictionaries({}, optional={"stop": st.lists(st.text(min_size=1))}),
        "algorithm": st.fixed_dictionaries(
            {"preset": st.sampled_from(["grpo", "dapo"])}, optional={"clip_high": positive, "beta": positive}
        ),
        "optimizer": st.fixed_dictionaries({}, optional={"lr": positive, "max_grad_norm": st.just(float("inf"))}),
    },
)


@given(recipes)
def test_the_resolved_recipe_loads_again_to_the_same(tmp_path_factory, source):
    first = load_recipe(source)
    path = tmp_path_factory.mktemp("round") / "recipe.toml"
    path.write_text(first.to_toml(), encoding="utf-8", newline="")
    again = load_recipe(path)
    assert again.recipe == first.recipe
    assert isinstance(again.recipe, Recipe)
    lines = path.read_text(encoding="utf-8").split("\n")
    for (name, value), origin in zip(leaves(again.recipe.model_dump()), again.origins.values(), strict=True):
        if value is not None:
            line = lines[int(origin.rpartition(":")[2]) - 1]
            assert line.startswith(dotted(name).removeprefix(table_of(name)))


def table_of(name) -> str:
    """The part of the dotted name that stands in the header of its table."""
    head = name[: 2 if name[0] == "rewards" and len(name) > 1 else 1]
    return f"{dotted(head)}." if len(name) > len(head) else ""
