"""Settings that would change nothing are mistakes, unless nobody chose them."""

import pytest

from groupwise.config import load_recipe

MIX = (
    "reference.mix: says how far a moving reference goes, but it stays while reference.every is not set. "
    "Set reference.every or drop it"
)
SAMPLES = (
    "evaluation.samples: says how many to draw for pass@k, but none is while evaluation.pass_at is not set. "
    "Set evaluation.pass_at or drop it"
)


def test_an_idle_setting_is_said_with_its_line(desk, smallest):
    text = smallest + "reference.mix = 0.5\nevaluation.samples = 16\n"
    assert desk.complaints(text) == [f"recipe.toml:3  {MIX}", f"recipe.toml:4  {SAMPLES}"]
    assert desk.complaints(smallest, "evaluation.samples=16") == [f"command line  {SAMPLES}"]


@pytest.mark.parametrize(
    "more",
    [
        "",
        "reference.mix = 0.6\nevaluation.samples = 8\n",
        "evaluation.samples = 16\nevaluation.pass_at = [4]\n",
        "reference.mix = 0.5\nreference.every = 10\nalgorithm.beta = 0.1\n",
    ],
)
def test_settings_that_count_and_defaults_are_fine(desk, smallest, more):
    loaded = desk.load(smallest + more)
    assert desk.load(loaded.to_toml()).recipe == loaded.recipe


@pytest.mark.parametrize(
    "setting", ["kl_in = 'reward'", "kl_ratio = true", "beta_control = 'proportional'", "divergence = 'k1'"]
)
def test_how_the_kl_is_taken_says_nothing_while_there_is_none(desk, smallest, setting):
    name = setting.split()[0]
    (complaint,) = desk.complaints(smallest + f"algorithm.{setting}\n")
    assert complaint == (
        f"recipe.toml:3  algorithm.{name}: says what becomes of the KL term, but there is none while algorithm.beta is "
        "not set. Set algorithm.beta or drop it"
    )
    assert desk.load(smallest + f"algorithm.{setting}\nalgorithm.beta = 0.1\n").recipe.algorithm.beta == 0.1


def test_a_preset_that_takes_the_kl_off_the_reward_says_nothing_wrong(desk, smallest):
    loaded = desk.load(smallest, "algorithm.preset=rloo")
    assert loaded.recipe.algorithm.kl_in == "reward"
    assert desk.load(loaded.to_toml()).recipe == loaded.recipe


def test_what_the_command_line_turns_off_for_once_leaves_the_file_alone(desk, smallest):
    text = smallest + "evaluation.samples = 16\nevaluation.pass_at = [4]\n"
    assert desk.load(text, "evaluation.pass_at=[]").recipe.evaluation.samples == 16


def test_in_code_as_in_a_file():
    section = {"model": {"id": "m"}, "task": {"kind": "gsm8k"}, "reference": {"mix": 0.5}}
    with pytest.raises(ValueError, match=r"in code  reference\.mix: says how far"):
        load_recipe(section)
