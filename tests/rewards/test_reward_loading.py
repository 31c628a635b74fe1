import functools
import inspect
import sys

import pytest

from groupwise.errors import RewardError
from groupwise.rewards import BUILT_IN, RewardFunction, as_reward, correctness, length, load_reward

JUDGE = """
import neighbour
calls = []
def judge(completions, scale=1.0, **kwargs):
    calls.append(len(completions))
    return [scale * neighbour.SCORE] * len(completions)
def count(completions):
    return [float(len(calls))] * len(completions)
class Judge:
    def __call__(self, completions, strictness=1):
        return [1.0] * len(completions)
strict = Judge()
shorter = lambda completions: [0.0] * len(completions)
number = 5
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "reward.py").write_text(JUDGE)
    (tmp_path / "neighbour.py").write_text("SCORE = 0.5\n")
    return tmp_path


def refusal(*arguments, **more):
    with pytest.raises(RewardError) as caught:
        load_reward(*arguments, **more)
    return str(caught.value)


def test_every_reward_of_the_tutorials_is_built_in():
    assert set(BUILT_IN) >= {
        "correctness",
        "integer",
        "strict_format",
        "soft_format",
        "tag_count",
        "tags_present",
        "length",
        "reached_end",
        "code_stdio",
        "code_tests",
    }


def test_data_of_a_built_in_are_positional_and_settings_are_keyword_only():
    # `as_reward` relies on it: it fills in all settings, so that no column can take the place of one.
    data = {"prompts", "completions", "completion_ids", "finish_reasons", "answer", "tests", "log_metric", "columns"}
    for function in BUILT_IN.values():
        for parameter in inspect.signature(function).parameters.values():
            assert (parameter.kind is parameter.KEYWORD_ONLY) == (parameter.name not in data)
            if parameter.name != "completion_ids":  # for one of two units only
                assert (parameter.default is parameter.empty) == (parameter.name in data)


def test_a_built_in_comes_with_all_its_settings():
    reward = load_reward("length", 0.5, {"target": 200})
    assert reward == RewardFunction("length", length, 0.5, {"target": 200, "unit": "characters"})
    assert load_reward("correctness").settings == {"exact": 2.0, "numeric": 1.5, "wrong": 0.0, "extract": "answer"}


def test_what_a_partial_binds_is_a_setting():
    bound = functools.partial(functools.partial(correctness, exact=1.0, wrong=-1.0), exact=3.0)
    reward = as_reward(bound, settings={"numeric": 2.0})
    assert reward.name == "correctness" and reward.function is correctness
    assert reward.settings == {"exact": 3.0, "numeric": 2.0, "wrong": -1.0, "extract": "answer"}


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("corectness", {}, "no built-in reward 'corectness' (did you mean 'correctness'?)"),
        ("reward.py", {}, "write file.py:name"),
        ("reward.py:", {}, "write file.py:name"),
        (":judge", {}, "write file.py:name"),
        ("length", {"traget": 5}, "has no setting 'traget' (did you mean 'target'?). It has: target, unit"),
        ("length", {"target": -1}, "setting target = -1: Input should be greater than or equal to 0 (default: 50)"),
        ("length", {"target": "50"}, "setting target = '50': Input should be a valid integer"),
        ("length", {"unit": "words"}, "setting unit = 'words': Input should be 'characters' or 'tokens'"),
        ("correctness", {"exact": "2"}, "setting exact = '2': Input should be a valid number"),
        ("correctness", {"exact": float("nan")}, "Input should be a finite number"),
        ("correctness", {"extract": "hashes"}, "Input should be 'answer'"),
        ("tag_count", {"tags": []}, "List should have at least 1 item"),
        ("tag_count", {"tags": ["<b>"]}, "String should match pattern"),
        ("strict_format", {"lines": 1}, "Input should be a valid boolean"),
    ],
)
def test_mistakes_with_built_ins(name, settings, told):
    assert told in refusal(name, settings=settings)


def test_a_weight_is_finite():
    assert "has weight nan: a weight is a finite number" in refusal("length", float("nan"))


def test_a_function_in_a_file_beside_the_recipe(folder):
    reward = load_reward("reward.py:judge", 2.0, {"scale": 3.0}, folder)
    assert (reward.name, reward.weight, reward.settings) == ("judge", 2.0, {"scale": 3.0})
    assert reward.function(completions=["a", "b"], scale=3.0) == [1.5, 1.5]


def test_functions_of_one_file_share_its_module_until_it_changes(folder):
    judge, count = (load_reward(f"reward.py:{name}", folder=folder).function for name in ("judge", "count"))
    judge(["a"])
    judge(["a"])
    assert count(["a"]) == [2.0]
    (folder / "reward.py").write_text("def count(completions):\n    return [9.0]\n")
    assert load_reward("reward.py:count", folder=folder).function(["a"]) == [9.0]


def test_callable_objects_and_lambdas_are_called_by_the_name_in_the_recipe(folder):
    assert load_reward("reward.py:strict", settings={"strictness": 2}, folder=folder).name == "strict"
    assert load_reward("reward.py:shorter", folder=folder).name == "shorter"


def test_a_module_that_can_be_imported(folder):
    (folder / "mine_to_import.py").write_text("class Rewards:\n    def ok(completions): return [1.0]\n")
    assert load_reward("mine_to_import:Rewards.ok", folder=folder).function(["x"]) == [1.0]
    assert load_reward("groupwise.rewards.shaping:length", settings={"target": 3}).settings["target"] == 3


def test_mistakes_with_files(folder):
    def load(name, settings=None):
        return refusal(name, settings=settings, folder=folder)

    assert f"there is no file {folder / 'rewards.py'}" in load("rewards.py:judge")
    assert "has no 'juge'" in load("reward.py:juge") and "did you mean 'judge'?" in load("reward.py:juge")
    assert "is a int, which cannot be called" in load("reward.py:number")
    assert "is a class: give an instance of it (in a file: `judge = Judge()`)" in load("reward.py:Judge")
    assert "does not take the setting 'strictnes' (did you mean 'strictness'?)" in load(
        "reward.py:strict", {"strictnes": 2}
    )
    assert "a setting may not be called 'completions'" in load("reward.py:judge", {"completions": 1})


def test_files_that_do_not_run_show_the_line(folder):
    (folder / "broken.py").write_text("def judge(:\n")
    (folder / "raises.py").write_text("x = 1\nvalue = {}['missing']\n")
    (folder / "needs.py").write_text("import surely_not_installed\n")
    assert "SyntaxError" in refusal("broken.py:judge", folder=folder)
    assert "broken.py, line 1" in refusal("broken.py:judge", folder=folder)
    message = refusal("raises.py:judge", folder=folder)
    assert "KeyError" in message and "raises.py:2, in <module>: value = {}['missing']" in message
    assert "No module named 'surely_not_installed'" in refusal("needs.py:judge", folder=folder)
    assert "module needs needs the module surely_not_installed" in refusal("needs:judge", folder=folder)
    assert "raises.py:2" in refusal("raises:judge", folder=folder)
    assert "there is no module no_such.module" in refusal("no_such.module:judge", folder=folder)


def test_a_python_callable_is_named_after_itself(folder):
    def judge(completions, strictness):
        return [1.0]

    assert as_reward(judge, 0.5, {"strictness": 1}) == RewardFunction("judge", judge, 0.5, {"strictness": 1})
    with pytest.raises(RewardError, match="does not take the setting 'strict'"):
        as_reward(judge, settings={"strict": 1})
    with pytest.raises(RewardError, match="cannot be called"):
        as_reward("judge")
