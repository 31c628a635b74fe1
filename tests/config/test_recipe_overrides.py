"""Overrides `a.b=c`: how their values are read, where they go, and what is said of those that go nowhere."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groupwise.config import load_recipe
from groupwise.config.toml_text import toml_value

SOURCE = {"model": {"id": "me/tiny"}, "task": {"kind": "gsm8k"}}


def loaded(*overrides: str):
    return load_recipe(SOURCE, overrides).recipe


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("optimizer.lr=2e-5", 2e-5),
        ("optimizer.lr=1", 1.0),
        ("optimizer.lr = 2e-5 ", 2e-5),
        ("model.id=foo/bar", "foo/bar"),
        ("model.id=out=put/model", "out=put/model"),
        ('model.id="foo/bar"', "foo/bar"),
        ("model.id=a#b", "a#b"),
        ("model.revision=none", None),
        ('model.revision="none"', "none"),
        ("model.id=none", "none"),
        ("model.gradient_checkpointing=true", True),
        ('run.trackers=["wandb", "tensorboard"]', ["wandb", "tensorboard"]),
        ("run.trackers.0=wandb", ["wandb"]),
        ("train.steps=1_000", 1000),
        ("optimizer.max_grad_norm=inf", math.inf),
        ("optimizer.betas=[0.8, 0.9]", (0.8, 0.9)),
    ],
)
def test_values_are_toml_and_else_texts(override, value):
    recipe = load_recipe(SOURCE, [override])
    section, key = override.partition("=")[0].strip().split(".")[:2]
    given = recipe.recipe.model_dump()[section][key]
    assert (given, type(given)) == (value, type(value))


def test_lora_is_switched_on_and_off():
    assert loaded().lora is None
    assert loaded("lora={}").lora.r == 16
    assert loaded("lora.r=8").lora.r == 8
    assert loaded("lora={r = 4, alpha = 8}", "lora.alpha=3").lora.alpha == 3.0
    assert loaded("lora={r = 4}", "lora={}").lora.r == 16
    assert loaded("lora.r=8", "lora=none").lora is None
    assert loaded("lora=none", "lora.r=8").lora.r == 8


def test_items_of_a_list_are_named_by_number(desk, smallest):
    text = smallest + '[[rewards]]\nfunction = "a"\n[[rewards]]\nfunction = "b"\nsettings = {k = 1, m = 2}\n'
    result = desk.load(
        text, "rewards.0.weight=2", "rewards.1.settings.k=3", "rewards.2.function=c", "rewards.3={function = 'd'}"
    )
    assert [(r.function, r.weight, r.settings) for r in result.recipe.rewards] == [
        ("a", 2.0, {}),
        ("b", 1.0, {"k": 3, "m": 2}),
        ("c", 1.0, {}),
        ("d", 1.0, {}),
    ]
    assert result.origins["rewards.0.function"] == "recipe.toml:4"
    assert result.origins["rewards.0.weight"] == "command line"
    assert result.origins["rewards.0.settings"] == "default"
    assert result.origins["rewards.1.settings.k"] == "command line"
    assert result.origins["rewards.1.settings.m"] == "recipe.toml:7"
    assert result.origins["rewards.3.function"] == "command line"


def test_a_whole_table_replaces_and_a_later_override_wins(desk, smallest):
    result = desk.load(smallest + "[optimizer]\nlr = 1.0\nwarmup = 0.5\n", "optimizer={lr = 2}", "optimizer.lr=3")
    assert (result.recipe.optimizer.lr, result.recipe.optimizer.warmup) == (3.0, 0.0)
    assert result.origins["optimizer.warmup"] == "default"


def test_the_mapping_that_was_given_is_not_changed():
    source = {"model": {"id": "x"}, "task": {"kind": "gsm8k"}, "rewards": [{"function": "f"}]}
    load_recipe(source, ["rewards.0.weight=2", "train.steps=3", "algorithm.preset=dapo"])
    assert source == {"model": {"id": "x"}, "task": {"kind": "gsm8k"}, "rewards": [{"function": "f"}]}


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("a.b", "a.b: an override is name=value, such as optimizer.lr=2e-5; this one has no ="),
        ("=3", "=3: in front of the = goes the name of a setting, such as optimizer.lr=2e-5"),
        ("a..b=3", "a..b=3: in front of the = goes the name of a setting, such as optimizer.lr=2e-5"),
        ("lr rate=3", "lr rate=3: in front of the = goes the name of a setting, such as optimizer.lr=2e-5"),
        ("model.id=", "model.id=: nothing stands after the =. For an empty text write model.id='\"\"'"),
        (
            "rewards.2.weight=1",
            "rewards.2.weight=1: rewards is a list: name an item by its number, from rewards.0 to rewards.1",
        ),
        (
            "rewards.first=1",
            "rewards.first=1: rewards is a list: name an item by its number, from rewards.0 to rewards.1",
        ),
        (
            "rewards.1.weight=1",
            'rewards.1.function: missing. Write under [[rewards]]: function = "...". '
            "A built-in name, `file.py:name` (beside the recipe), or `package.module:name`.",
        ),
        ("model.id.x=1", 'model.id.x=1: model.id is "me/tiny", there is nothing below it to set'),
        ("train.groupsize=4", "train.groupsize: unknown setting. Did you mean train.group_size? (default 8)"),
        ("lr=4", "lr: unknown setting. Did you mean optimizer.lr? (default 1e-06)"),
        ("--train.steps=4", "--train: unknown setting. Did you mean train?"),
        (
            "run.trackers=[wandb]",
            'run.trackers: got "[wandb]", needs a list, each one of "tensorboard", "wandb", "trackio" (default []). '
            "In a shell, put the whole override in single quotes",
        ),
        (
            "run.trackers=wandb",
            'run.trackers: got "wandb", needs a list, each one of "tensorboard", "wandb", "trackio" (default []). '
            "Put it in brackets: 'run.trackers=[\"wandb\"]'",
        ),
        ("model.revision=1234", "model.revision: got 1234, needs text. Put it in quotes: 'model.revision=\"1234\"'"),
        (
            "evaluation.before=True",
            'evaluation.before: got "True", needs true or false (default true). Write evaluation.before=true',
        ),
        (
            "train.steps=none",
            'train.steps: got "none", needs a whole number, at least 1 (default 200). Number of GRPO steps.',
        ),
        (
            "lora=true",
            "lora: got true, needs a table. Override a setting in it: lora.SETTING=VALUE, or lora={} for its defaults",
        ),
        ("lora=false", "lora: got false, needs a table. Write lora=none"),
        ("algorithm=dapo", 'algorithm: got "dapo", needs a table. Write \'algorithm.preset="dapo"\''),
        ("train=5", "train: got 5, needs a table. Override a setting in it: train.SETTING=VALUE"),
        (
            "model.id=\udc80",
            "model.id: got '\\udc80', needs text, not empty. A folder, or the id of a model on the hub.",
        ),
        ("x\x1b[31m", "x\\x1b[31m: an override is name=value, such as optimizer.lr=2e-5; this one has no ="),
    ],
)
def test_overrides_that_cannot_be(desk, smallest, override, complaint):
    text = smallest + '[[rewards]]\nfunction = "a"\n'
    assert desk.complaints(text, override) == [f"command line  {complaint}"]


@pytest.mark.parametrize("text", ["1\nseed = 2", "[1,", "{", "'", "\x00", "007", "[" * 5000, "[" * 99 + "]" * 99])
def test_what_is_no_single_toml_value_is_a_text(text):
    assert loaded(f"rewards.0.function={text}").rewards[0].function == text.strip()


tomlish = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False), st.text())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(tomlish, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner, min_size=1), max_leaves=5)
)
def test_any_value_goes_through_an_override(value):
    reward = loaded("rewards.0.function=f", f"rewards.0.settings.x={toml_value(value)}").rewards[0]
    assert reward.settings == {"x": value}


@given(st.text(min_size=1).filter(lambda text: text == text.strip()))
def test_any_quoted_name_goes_through_an_override(name):
    recipe = load_recipe(
        {"model": {"id": "m"}, "task": {"kind": "dataset", "path": "p"}}, [f"task.columns.{toml_value(name)}=col"]
    ).recipe
    assert recipe.model_dump()["task"]["columns"] == {name: "col"}
