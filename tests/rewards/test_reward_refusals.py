import asyncio
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from groupwise.errors import RewardError
from groupwise.rewards import Answers, RewardFunction, grade, name_of

ANSWERS = Answers(
    prompts=["1+1=", "2+2=", "3+3="],
    completions=["2", "four", "\x1b[31m6"],
    completion_ids=[(5,), (6,), (7,)],
    finish_reasons=["stop"] * 3,
    columns={"answer": ["2", "4", "6"]},
)


def refusal(function, answers=ANSWERS, **more):
    with pytest.raises(RewardError) as caught:
        asyncio.run(grade([RewardFunction(name_of(function), function, on_error="stop", **more)], answers))
    return caught.value


def returning(value):
    def given(completions):
        return value

    return given


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (float("nan"), "nan"),
        (float("inf"), "infinite in fp32"),
        (-float("inf"), "infinite in fp32"),
        (1e308, "infinite in fp32"),
        (10**400, "infinite in fp32"),
        (np.float64("nan"), "nan"),
        (torch.tensor(float("inf")), "infinite in fp32"),
        ("1.0", "'1.0' (str)"),
        ([1.0], "[1.0] (list)"),
        (np.array([1.0]), "array([1.]) (ndarray)"),
        (torch.tensor([1.0]), "tensor([1.]) (Tensor)"),
        (1j, "1j (complex)"),
        ({"score": 1.0}, "{'score': 1.0} (dict)"),
    ],
)
def test_a_value_that_is_no_reward_names_function_row_and_cure(value, told):
    message = str(refusal(returning([1.0, value, 1.0])))
    assert message.startswith(f"reward function 'given' returned {told}" if told[0] not in "i" else "reward function")
    assert told in message and "row 1 (prompt '2+2=', completion 'four')" in message
    assert "or None for a row" in message


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "None (NoneType)"),
        (1.0, "1.0 (float)"),
        ("123", "'123' (str)"),
        (b"123", "b'123' (bytes)"),
        ({1.0, 2.0, 3.0}, "(set)"),
        ({"a": 1}, "(dict)"),
        (torch.tensor(1.0), "(Tensor)"),
        (np.array(1.0), "(ndarray)"),
        (len, "(builtin_function_or_method)"),
    ],
)
def test_a_return_value_that_is_no_list_is_refused(value, told):
    message = str(refusal(returning(value)))
    assert told in message and "return a list with one number per completion (3 here)" in message


@pytest.mark.parametrize(
    ("value", "told"),
    [([1.0] * 2, "returned 2 values"), ([], "returned 0 values"), ([1.0] * 4, "returned more than 3 values")],
)
def test_a_wrong_length_is_refused(value, told):
    assert f"{told} for 3 completions" in str(refusal(returning(value)))


def test_an_endless_generator_is_refused():
    def endless(completions):
        while True:
            yield 1.0

    assert "more than 3 values" in str(refusal(endless))


def test_a_function_that_raises_names_itself_its_line_and_the_row():
    def fragile(completions, **kwargs):
        return [json.loads(text)["score"] if text == "four" else 1.0 for text in completions]

    error = refusal(fragile)
    assert isinstance(error.__cause__, json.JSONDecodeError)
    message = str(error)
    assert "reward function 'fragile' raised JSONDecodeError: Expecting value" in message
    assert "test_reward_refusals.py:" in message and 'json.loads(text)["score"] if' in message
    assert "It raises on row 1 (prompt '2+2=', completion 'four')" in message


def test_async_functions_and_generators_that_raise_are_named_the_same_way():
    async def fragile(completions):
        await asyncio.sleep(0)
        return [float(text) for text in completions]

    def lazy(completions):
        for text in completions:
            yield float(text)

    for function in (fragile, lazy):
        message = str(refusal(function))
        assert f"reward function '{function.__name__}' raised ValueError: could not convert string to float" in message
        assert "It raises on row 1 " in message


def test_a_failure_of_the_whole_batch_blames_no_row():
    def needs_few(completions):
        if len(completions) > 2:
            raise RuntimeError("too many")
        return [1.0] * len(completions)

    assert "No row of the 3 makes it raise alone" in str(refusal(needs_few))


def test_the_search_for_the_row_stops_in_time(monkeypatch):
    monkeypatch.setattr("groupwise.rewards.call._SEARCH_SECONDS", -1.0)

    def fragile(completions):
        raise RuntimeError("no")

    assert "Which of the 3 rows it was is not known" in str(refusal(fragile))


def test_calls_that_search_for_the_row_log_nothing():
    logged = []

    def fragile(completions, log_extra):
        log_extra("x", completions)
        logged.append(len(completions))
        raise RuntimeError("no")

    refusal(fragile)
    assert logged == [3, 1]


def test_messages_hold_no_escape_codes():
    def fragile(completions):
        return [1.0, 1.0, completions[2]]

    message = str(refusal(fragile))
    assert message.isascii() and "\x1b" not in message and "\\x1b[31m6" in message


def test_a_failing_async_function_leaves_none_behind():
    ended = []

    async def slow(completions):
        await asyncio.sleep(0.02)
        ended.append("slow")
        return [1.0] * 3

    async def fails(completions):
        raise RuntimeError("at once")

    rewards = [RewardFunction("fails", fails, on_error="stop"), RewardFunction("slow", slow)]
    with pytest.raises(RewardError, match="'fails' raised RuntimeError: at once"):
        asyncio.run(grade(rewards, ANSWERS))
    assert ended == ["slow"]


class MuteError(Exception):
    def __str__(self):
        raise ValueError("not even this")


class OfNoValue:
    shape = ()

    def item(self):
        raise SystemExit("no value either")


async def cancels_itself(completions):
    asyncio.current_task().cancel()
    await asyncio.sleep(1)


@pytest.mark.parametrize(
    "error", [SystemExit(3), BaseException("odd"), asyncio.CancelledError(), GeneratorExit(), MuteError()]
)
def test_nothing_that_a_function_raises_ends_the_run(error):
    def raises(completions):
        raise error

    async def raises_later(completions):
        raise error

    for function in (raises, raises_later):
        if not (function is raises_later and isinstance(error, GeneratorExit)):
            marks = asyncio.run(grade([RewardFunction("bad", function)], ANSWERS))
            assert {mark.outcome for mark in marks} == {"unknown"}
            assert f"raised {type(error).__name__}" in marks[0].why


def test_nor_do_values_that_cannot_be_read_and_tasks_that_cancel_themselves():
    for function in (lambda completions: [OfNoValue()] * len(completions), cancels_itself):
        marks = asyncio.run(grade([RewardFunction("bad", function)], ANSWERS))
        assert {mark.outcome for mark in marks} == {"unknown"}


def test_what_belongs_to_the_process_is_put_back(tmp_path, caplog):
    folder = Path.cwd()

    def rude(completions):
        os.chdir(tmp_path)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        return [1.0] * len(completions)

    assert asyncio.run(grade([RewardFunction("rude", rude)], ANSWERS))[0].reward == 1.0
    assert (Path.cwd(), torch.get_default_dtype(), torch.is_grad_enabled()) == (folder, torch.float32, True)
    assert "'rude' changed the working folder: it is put back" in caplog.text


def test_interrupts_are_not_rewards():
    def interrupted(completions):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(grade([RewardFunction("interrupted", interrupted)], ANSWERS))


def test_a_column_that_does_not_exist_is_named_with_those_that_do():
    def wants(completions, solution):
        return [1.0] * 3

    message = str(refusal(wants))
    assert "asks for 'solution'" in message and "(there are: answer)" in message and "task.columns" in message


def test_parameters_by_position_cannot_be_filled():
    def by_position(completions, /):
        return [1.0] * 3

    assert "remove the '/'" in str(refusal(by_position))


def test_a_column_with_the_name_of_something_else_is_refused():
    answers = Answers(["p"], ["c"], [(1,)], ["stop"], {"trainer_state": [1]})
    assert "a column may not be called 'trainer_state'" in str(refusal(returning([1.0]), answers))


def test_logging_nonsense_names_the_function():
    def short(completions, log_extra):
        log_extra("x", [1])

    def text(completions, log_metric):
        log_metric("y", "high")

    def nan(completions, log_metric):
        log_metric("y", float("nan"))

    assert "'short' called log_extra('x', ...) with 1 values for 3 completions" in str(refusal(short))
    assert "'text' called log_metric('y', 'high')" in str(refusal(text))
    assert "'nan' called log_metric('y', nan)" in str(refusal(nan))
