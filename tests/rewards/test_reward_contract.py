import asyncio
import functools
import signal
import threading

import numpy as np
import pytest
import torch

from groupwise.errors import RewardError
from groupwise.rewards import (
    Answers,
    GradingLog,
    RewardFunction,
    TrainerState,
    grade,
    name_of,
    total,
    with_unique_names,
)

PLAIN = Answers(
    prompts=["1+1=", "1+1=", "2+2=", "2+2="],
    completions=["2", "3", "4", "five"],
    completion_ids=[(5, 1), (6, 1), (7, 1), (8, 9, 1)],
    finish_reasons=["stop", "stop", "stop", "length"],
    columns={"answer": ["2", "2", "4", "4"], "prompt": ["not handed on"] * 4},
)
CHAT = Answers(
    prompts=[({"role": "user", "content": "1+1="},)] * 2,
    completions=["2", "3"],
    completion_ids=[(5, 1), (6, 1)],
    finish_reasons=["stop", "stop"],
    columns={"answer": ["2", "2"]},
)


def of(function, **more):
    return RewardFunction(name_of(function), function, **{"on_error": "stop", **more})


def graded(functions, answers=PLAIN, **more):
    rewards = [f if isinstance(f, RewardFunction) else of(f) for f in functions]
    return [row.parts for row in asyncio.run(grade(rewards, answers, **more))]


def values(function, answers=PLAIN):
    return [parts[name_of(function)] for parts in graded([function], answers)]


def test_everything_comes_by_keyword_in_the_shapes_of_plain_data():
    seen = {}

    def spy(**kwargs):
        seen.update(kwargs)
        return [0.0] * 4

    graded([spy], trainer_state=TrainerState(global_step=7, max_steps=20, epoch=0.5))
    assert seen["prompts"] == ["1+1=", "1+1=", "2+2=", "2+2="]
    assert seen["completions"] == ["2", "3", "4", "five"]
    assert seen["completion_ids"] == [[5, 1], [6, 1], [7, 1], [8, 9, 1]]
    assert seen["finish_reasons"] == ["stop", "stop", "stop", "length"]
    assert seen["answer"] == ["2", "2", "4", "4"]
    assert seen["trainer_state"] == TrainerState(7, 20, 0.5)
    assert "prompt" not in seen and callable(seen["log_extra"]) and callable(seen["log_metric"])


def test_conversations_have_messages_for_completions():
    def as_tutorials_write_it(prompts, completions, answer, **kwargs):
        responses = [completion[0]["content"] for completion in completions]
        assert prompts[0][-1]["content"] == "1+1="
        return [2.0 if r == a else 0.0 for r, a in zip(responses, answer)]  # noqa: B905

    assert values(as_tutorials_write_it, CHAT) == [2.0, 0.0]


def test_a_function_without_kwargs_is_given_only_what_it_names():
    def plain(completions, answer):
        return [float(c == a) for c, a in zip(completions, answer, strict=True)]

    assert values(plain) == [1.0, 0.0, 1.0, 0.0]


def test_a_parameter_with_a_default_takes_a_column_of_its_name_and_else_the_default():
    def plain(completions, answer=None, solution="none"):
        return [float(answer is not None and solution == "none")] * len(completions)

    assert values(plain) == [1.0] * 4


def test_settings_win_over_columns():
    def scaled(completions, answer, **kwargs):
        return [float(answer)] * len(completions)

    assert graded([of(scaled, settings={"answer": 3.0})])[0] == {"scaled": 3.0}


def test_a_function_may_change_what_it_is_given_without_the_next_one_seeing_it():
    def careless(prompts, completions, answer):
        answer.clear()
        completions[0].clear()
        prompts[0][0]["content"] = "gone"
        return [0.0, 0.0]

    def careful(prompts, completions, answer):
        return [float(prompts[0][0]["content"] == "1+1="), float(len(answer) + len(completions[0]))]

    assert graded([careless, careful], CHAT) == [{"careless": 0.0, "careful": 1.0}, {"careless": 0.0, "careful": 3.0}]


@pytest.mark.parametrize(
    "returned",
    [
        [1, 0.0, True, None],
        (1, 0, 1, None),
        (value for value in [1, 0, 1, None]),
        [np.float32(1), np.int64(0), np.bool_(True), None],
        [torch.tensor(1.0), torch.tensor(0), torch.tensor(True), None],
    ],
)
def test_any_iterable_of_numbers_or_none_is_accepted(returned):
    def give(completions):
        return returned

    got = values(give)
    assert got == [1.0, 0.0, 1.0, None]
    assert [type(value) for value in got[:3]] == [float] * 3


def test_whole_tensors_and_arrays_are_iterables_too():
    def tensor(completions):
        return torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)

    def array(completions):
        return np.arange(4)

    assert values(tensor) == [1.0, 2.0, 3.0, 4.0]
    assert values(array) == [0.0, 1.0, 2.0, 3.0]


def test_plain_functions_run_in_order_and_async_ones_together_after_them():
    happened = []
    both_started = {}

    async def first(completions):
        happened.append("first starts")
        both_started.setdefault("event", asyncio.Event())
        await asyncio.wait_for(both_started["event"].wait(), 5)  # set by the second: they have to overlap
        happened.append("first ends")
        return [1.0] * 4

    class Second:
        async def __call__(self, completions):
            happened.append("second starts")
            both_started.setdefault("event", asyncio.Event()).set()
            return [2.0] * 4

    async def scored(completions, score):
        return [score] * 4

    def plain(completions):
        happened.append("plain")
        return [0.0] * 4

    rows = graded([first, Second(), functools.partial(scored, score=3.0), plain])
    assert rows[0] == {"first": 1.0, "Second": 2.0, "scored": 3.0, "plain": 0.0}
    assert list(rows[0]) == ["first", "Second", "scored", "plain"]
    assert happened == ["plain", "first starts", "second starts", "first ends"]


def test_a_plain_function_that_returns_a_coroutine_is_awaited():
    async def later():
        return [1.0] * 4

    assert graded([RewardFunction("lazy", lambda completions: later())])[3] == {"lazy": 1.0}


def test_a_plain_function_may_start_an_event_loop_of_its_own():
    async def ask(text):
        await asyncio.sleep(0)
        return float(len(text))

    def judge(completions, **kwargs):
        return [asyncio.run(ask(text)) for text in completions]

    async def grade_between_awaits():
        await asyncio.sleep(0)
        rows = await grade([of(judge)], PLAIN)
        await asyncio.sleep(0)  # the loop still works
        assert asyncio.current_task() is not None
        return rows

    assert [row.parts["judge"] for row in asyncio.run(grade_between_awaits())] == [1.0, 1.0, 1.0, 4.0]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no signal timers here")
def test_a_plain_function_may_set_signal_timers():
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("tests do not run in the main thread")
    rang = []

    def timed(completions):
        before = signal.signal(signal.SIGALRM, lambda *_: rang.append(True))
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        while not rang:
            pass
        signal.signal(signal.SIGALRM, before)
        return [1.0] * len(completions)

    assert values(timed) == [1.0] * 4


def test_names_come_from_the_function_the_partial_or_the_class():
    class Judge:
        def __call__(self, completions):
            return [1.0]

    def score():
        pass

    assert [name_of(f) for f in (score, functools.partial(functools.partial(score)), Judge(), len)] == [
        "score",
        "score",
        "Judge",
        "len",
    ]


def test_names_that_are_taken_get_numbers():
    def score(completions):
        return [1.0] * 4

    def other(completions):
        return [5.0] * 4

    rewards = [of(score), RewardFunction("score", other), RewardFunction("score_2", other, weight=0.0), of(score)]
    assert [r.name for r in with_unique_names(rewards)] == ["score", "score_2", "score_2_2", "score_3"]
    assert with_unique_names(with_unique_names(rewards)) == with_unique_names(rewards)
    rows = graded(rewards)
    assert rows[0] == {"score": 1.0, "score_2": 5.0, "score_2_2": 5.0, "score_3": 1.0}
    assert total(rows[0], rewards) == 7.0


def test_the_total_is_a_weighted_sum_that_leaves_out_none():
    rewards = [RewardFunction("a", len, 1.0), RewardFunction("b", len, 0.5), RewardFunction("c", len, -2.0)]
    assert total({"a": 2.0, "b": 1.0, "c": 0.25}, rewards) == 2.0
    assert total({"a": 2.0, "b": None, "c": None}, rewards) == 2.0
    assert total({"a": None, "b": None, "c": None}, rewards) is None
    with pytest.raises(RewardError, match=r"weighted sum of rewards is inf \(1e\+308 \* a = 1e\+30\)"):
        total({"a": 1e30}, [RewardFunction("a", len, 1e308)])


def test_no_rows_call_no_function():
    def never(completions):
        raise AssertionError

    assert graded([never], Answers([], [], [], [])) == []


def test_what_functions_log_is_collected():
    def judged(completions, log_extra, log_metric):
        log_extra("verdict", [text.upper() for text in completions])
        log_extra(column="verdict", values=range(4))
        log_metric("sure", 0.25)
        log_metric(name="sure", value=np.float32(0.75))
        return [1.0] * 4

    async def also(completions, log_metric, **kwargs):
        log_metric("sure", 2.0)
        return [1.0] * 4

    log = GradingLog()
    graded([judged, also], log=log)
    assert log.columns == {"verdict": ["2", "3", "4", "FIVE"], "verdict_2": [0, 1, 2, 3]}
    assert log.metrics == {"sure": 1.0}


def test_logging_without_anybody_listening_is_no_error():
    def judged(completions, log_extra, log_metric):
        log_extra("x", completions)
        log_metric("y", 1)
        return [1.0] * 4

    assert values(judged) == [1.0] * 4


def test_the_state_of_training_reaches_the_function():
    def warming_up(completions, trainer_state):
        return [trainer_state.global_step / trainer_state.max_steps] * 4

    state = TrainerState(global_step=5, max_steps=20)
    assert graded([warming_up], trainer_state=state)[0] == {"warming_up": 0.25}
