"""Whose fault it is: the truth table of score, wrong, unknown and ungraded, and what becomes of each on_error."""

import asyncio

import pytest

from groupwise.config.presets import PRESETS
from groupwise.config.sections import AlgorithmSection
from groupwise.errors import RewardError
from groupwise.learner.algorithm import Algorithm
from groupwise.rewards import Answers, GradingLog, RewardFunction, Unknown, Wrong, grade
from groupwise.rewards import call as call_module
from groupwise.rewards.outcomes import graded, settled
from groupwise.rollouts.grade import graded as graded_groups
from groupwise.types import Completion, Group, Problem, Rollout

A, B = RewardFunction("a", len, weight=2.0), RewardFunction("b", len)
WATCHER = RewardFunction("b", len, weight=0.0)
LIMIT, FAILED = Wrong("ran out of time", -1.0), Unknown("sandbox down")


@pytest.mark.parametrize(
    ("a", "b", "second", "reward", "outcome", "why"),
    [
        # both functions count
        (1.0, 0.5, B, 2.5, "scored", ""),
        (1.0, None, B, 2.0, "scored", ""),
        (None, None, B, None, "ungraded", ""),
        (LIMIT, 0.5, B, -1.5, "wrong", "a: ran out of time"),
        (LIMIT, None, B, -2.0, "wrong", "a: ran out of time"),
        (LIMIT, LIMIT, B, -3.0, "wrong", "a: ran out of time; b: ran out of time"),
        (FAILED, 0.5, B, None, "unknown", "a: sandbox down"),
        (FAILED, None, B, None, "unknown", "a: sandbox down"),
        (FAILED, LIMIT, B, None, "unknown", "a: sandbox down"),
        (FAILED, FAILED, B, None, "unknown", "a: sandbox down; b: sandbox down"),
        # the second only watches
        (1.0, FAILED, WATCHER, 2.0, "scored", ""),
        (FAILED, 1.0, WATCHER, None, "unknown", "a: sandbox down"),
        (1.0, LIMIT, WATCHER, 2.0, "wrong", "b: ran out of time"),
    ],
)
def test_the_truth_table(a, b, second, reward, outcome, why):
    grade = graded({"a": a, "b": b}, [A, second])
    assert (grade.reward, grade.outcome, grade.why) == (reward, outcome, why)
    assert grade.parts["a"] == (-1.0 if a is LIMIT else None if a is FAILED else a)


def test_a_limit_never_pays():
    assert settled([-3.0, Wrong("slow"), 2.0]) == [-3.0, Wrong("slow", -3.0), 2.0]
    assert settled([5.0, Wrong("slow")]) == [5.0, Wrong("slow", 0.0)]
    assert settled([Wrong("slow", 1.0)]) == [Wrong("slow", 1.0)], "a score that the function chose stays"


def group_of(function, texts):
    rollouts = tuple(Rollout(Completion((7,), (-0.5,), "stop", text)) for text in texts)
    return asyncio.run(graded_groups([Group(Problem("p", "?"), (5,), rollouts)], [function]))[0]


def test_unknown_takes_no_part_in_mean_std_and_gradient_and_wrong_does():
    def judge(completions):
        special = {"limit": Wrong("too long"), "down": Unknown("down")}
        return [special.get(text, 1.0) for text in completions]

    group = group_of(RewardFunction("judge", judge), ["fine", "limit", "down"])
    assert group.rewards_G == [1.0, 0.0, None]
    assert [rollout.outcome for rollout in group.rollouts] == ["scored", "wrong", "unknown"]
    for preset, advantage in (("grpo", 0.70701), ("dr_grpo", 0.5)):
        algorithm = Algorithm.of(AlgorithmSection(**PRESETS[preset]), 8)
        assert algorithm.advantages([group]) == [[pytest.approx(x, abs=1e-5) for x in (advantage, -advantage, 0.0)]]


def test_where_functions_are_normalised_one_by_one_an_unknown_rollout_moves_none_of_them():
    completion = Completion((7,), (-0.5,), "stop", "x")

    def rollouts(*parts):
        return tuple(
            Rollout(completion, {"a": a, "b": b}, None if a is None else a + b, outcome="scored") for a, b in parts
        )

    algorithm = Algorithm.of(AlgorithmSection(**{**PRESETS["grpo"], "advantage": "gdpo"}), 8)
    three = Group(Problem("p", "?"), (5,), rollouts((1.0, 0.0), (0.0, 2.0), (None, 50.0)))
    two = Group(Problem("p", "?"), (5,), rollouts((1.0, 0.0), (0.0, 2.0)))
    assert algorithm.advantages([three])[0] == [*algorithm.advantages([two])[0], 0.0]


ANSWERS = Answers(["p"] * 4, ["1", "2", "x", "4"], [(1,)] * 4, ["stop"] * 4)


def marks(function, answers=ANSWERS, log=None, **more):
    rows = asyncio.run(grade([RewardFunction("judge", function, **more)], answers, log=log))
    return [row.reward for row in rows], [row.outcome for row in rows], [row.why for row in rows]


def reads_numbers(completions, **kwargs):
    return [float(text) for text in completions]


def test_a_row_that_a_function_fails_on_is_unknown_and_the_others_are_graded():
    rewards, outcomes, why = marks(reads_numbers)
    assert rewards == [1.0, 2.0, None, 4.0]
    assert outcomes == ["scored", "scored", "unknown", "scored"]
    assert "raised ValueError: could not convert string to float" in why[2] and "test_reward_outcomes.py:" in why[2]


def test_the_others_are_graded_together_as_the_contract_has_it():
    def shares(completions, log_extra, log_metric):
        numbers = [float(text) for text in completions]
        log_extra("number", numbers)
        log_metric("sum", sum(numbers))
        return [number / sum(numbers) for number in numbers]

    log = GradingLog()
    assert marks(shares, log=log)[0] == [1 / 7, 2 / 7, None, 4 / 7]
    assert log.columns == {"number": [1.0, 2.0, None, 4.0]} and log.metrics == {"sum": 7.0}


def test_a_function_that_fails_on_all_rows_or_on_none_alone_is_unknown_for_all():
    def broken(completions):
        raise RuntimeError("no")

    def needs_few(completions):
        if len(completions) > 2:
            raise RuntimeError("too many")
        return [1.0] * len(completions)

    assert marks(broken)[1] == marks(needs_few)[1] == ["unknown"] * 4
    assert marks(lambda completions: [1.0])[1] == ["unknown"] * 4
    assert "returned 1 values for 4 completions" in marks(lambda completions: [1.0])[2][0]


def test_memory_and_stack_are_the_texts_own_limits_unless_every_text_reaches_them():
    def hungry(completions):
        if "x" in completions:
            raise MemoryError
        return [3.0] * len(completions)

    def always(completions):
        raise RecursionError

    assert marks(hungry)[:2] == ([3.0, 3.0, 0.0, 3.0], ["scored", "scored", "wrong", "scored"])
    assert marks(always)[1] == ["unknown"] * 4


@pytest.mark.parametrize("value", [float("nan"), "1.0", [1.0], 1e308])
def test_a_value_that_is_no_reward_makes_its_row_unknown(value):
    rewards, outcomes, why = marks(lambda completions: [1.0, value, None, 1.0])
    assert rewards == [1.0, None, None, 1.0] and outcomes == ["scored", "unknown", "ungraded", "scored"]
    assert "for row 1 (prompt 'p', completion '2')" in why[1]


def test_retry_asks_again_for_the_rows_that_are_unknown(monkeypatch):
    monkeypatch.setattr(call_module, "PAUSES", (0.0, 0.0))
    asked = []

    def recovers(completions):
        asked.append(list(completions))
        ready = len(asked) > 2
        return [Unknown("busy") if text in "12" and not ready else 1.0 for text in completions]

    assert marks(recovers, on_error="retry")[0] == [1.0] * 4
    assert asked == [["1", "2", "x", "4"], ["1", "2"], ["1", "2"]]
    asked.clear()
    assert marks(recovers)[1] == ["unknown", "unknown", "scored", "scored"] and len(asked) == 1


def test_retry_gives_up_in_the_end(monkeypatch):
    monkeypatch.setattr(call_module, "PAUSES", (0.0, 0.0))
    assert marks(reads_numbers, on_error="retry")[0] == [1.0, 2.0, None, 4.0]


def test_stop_names_the_row_that_is_unknown():
    with pytest.raises(RewardError, match=r"'judge', row 2 \(prompt 'p', completion 'x'\): the judge is down"):
        marks(lambda completions: [1.0, 1.0, Unknown("the judge is down"), 1.0], on_error="stop")
    with pytest.raises(RewardError, match=r"It raises on row 2"):
        marks(reads_numbers, on_error="stop")
