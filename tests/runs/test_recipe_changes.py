"""Which settings of a run may change when it goes on, and what is said about it."""

import pytest

from groupwise.config import load_recipe
from groupwise.config.recipe import Recipe
from groupwise.errors import RunError
from groupwise.runs.changes import KINDS, changed_settings, refuse
from groupwise.runs.entrance import enter, look

BASE = {"model": {"id": "tiny"}, "task": {"kind": "arithmetic"}, "rewards": [{"function": "correctness"}]}


def toml(*overrides):
    return load_recipe(BASE, overrides).to_toml()


@pytest.mark.parametrize(
    ("override", "kind", "said"),
    [
        ("train.steps=300", "accepted", "train.steps: 200 -> 300"),
        ("learner.token_budget=64", "accepted", "learner.token_budget: unset -> 64"),
        ("optimizer.lr=1e-3", "warned", "optimizer.lr: 1e-06 -> 0.001  (from here on this is another experiment)"),
        ("rewards=[{function='format'}]", "warned", 'rewards.0.function: "correctness" -> "format"'),
        ("task.digits=2", "refused", "task.digits: 3 -> 2  (the place in the data"),
        ("seed=1", "refused", "seed: 0 -> 1"),
        ("lora={r=8}", "refused", "lora.r: unset -> 8"),
        ("lora.dropout=0.1", "warned", "lora.dropout: unset -> 0.1"),
        ("model.device=cpu", "warned", 'model.device: "auto" -> "cpu"'),
        ("run.folder=elsewhere", "accepted", 'run.folder: "runs" -> "elsewhere"'),
    ],
)
def test_a_change_is_named_and_judged(override, kind, said):
    changes = {change.name: change for change in changed_settings(toml(), toml(override))}
    change = changes[said.split(":")[0]]
    assert change.kind == kind
    assert str(change).startswith(said)


def test_the_first_setting_of_an_empty_section_is_one_change():
    assert [str(change) for change in changed_settings(toml(), toml("budgets.hours=2"))] == [
        "budgets.hours: unset -> 2.0"
    ]
    assert [change.name for change in changed_settings(toml(), toml("rewards.0.settings.tag='x'"))] == [
        "rewards.0.settings.tag"
    ]


def test_what_is_equal_is_no_change():
    assert changed_settings(toml("lora={r=8}"), toml("lora={r=8}")) == []


def test_every_section_of_a_recipe_has_been_judged():
    assert {name for name in Recipe.model_fields if name not in KINDS} == set()


def test_all_that_is_refused_is_told_at_once():
    with pytest.raises(RunError, match=r"runs/a cannot go on(.|\n)*seed: 0 -> 1(.|\n)*task\.digits(.|\n)*Ways out"):
        refuse(changed_settings(toml(), toml("seed=1", "task.digits=2", "train.steps=3")), "runs/a")


def test_a_run_goes_on_with_what_may_change_and_remembers_it(tmp_path):
    with pytest.raises(ZeroDivisionError), enter(tmp_path, "demo", load_recipe(BASE), "train", {}):
        raise ZeroDivisionError
    with pytest.raises(RunError, match="seed: 0 -> 1"):
        look(tmp_path, "demo", load_recipe(BASE, ["seed=1"]), "train")
    with pytest.raises(RunError, match="was begun with `groupwise train`"):
        look(tmp_path, "demo", load_recipe(BASE), "sft")
    with enter(tmp_path, "demo", load_recipe(BASE, ["train.steps=5"]), "train", {}) as run:
        assert run.changes() == ["train.steps: 200 -> 5"]
        assert run.recipe().recipe.train.steps == 5
        assert run.identity["status"] == "running"
    assert "error" not in run.identity or run.identity["error"] is None


def test_a_secret_that_is_not_written_is_no_change(tmp_path):
    secret = {**BASE, "rewards": [{"function": "r.py:f", "settings": {"api_key": "hidden"}}]}
    with pytest.raises(ZeroDivisionError), enter(tmp_path, "demo", load_recipe(secret), "train", {}):
        raise ZeroDivisionError
    assert look(tmp_path, "demo", load_recipe(secret), "train").changes == ()
