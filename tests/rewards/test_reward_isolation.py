"""Rewards that hang, crash or eat the machine: the run goes on, in time, and nothing is left behind (H6, H7)."""

import asyncio
import dataclasses
import gc
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from groupwise.rewards import Answers, GradingLog, RewardFunction, TrainerState, grade, load_reward
from groupwise.rewards.isolated import place as place_module
from groupwise.rewards.isolated import process as process_module
from groupwise.rewards.isolated import thread as thread_module
from groupwise.rewards.isolated import watch as watch_module
from groupwise.rewards.isolated.wire import UnsendableError, decoded, encoded

FILE = """
import asyncio, os, re, time, signal
calls = []
def judge(completions, answer, trainer_state, log_extra, log_metric, scale=1.0, **kwargs):
    calls.append(len(completions))
    log_extra("seen", [text.upper() for text in completions])
    log_metric("calls", len(calls))
    print("printed by a reward")
    return [None if a is None else scale * len(text) for text, a in zip(completions, answer)]
def me(completions):
    return [float(os.getpid())] * len(completions)
def steps(completions, trainer_state):
    return [float(sum(row["reward"] for row in trainer_state.log_history))] * len(completions)
def sleeper(completions):
    for text in completions:
        if text == "sleep":
            time.sleep(3600)
    return [1.0] * len(completions)
def holds_the_lock(completions):
    return [float(bool(re.match("(a+)+$", text))) for text in completions]
def always_hangs(completions):
    while True:
        pass
def dies(completions):
    for text in completions:
        if text == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
    return [1.0] * len(completions)
def raises(completions):
    return [float(text) for text in completions]
async def slow(completions):
    await asyncio.sleep(0.5)
    return [1.0] * len(completions)
async def slow_too(completions):
    await asyncio.sleep(0.5)
    return [2.0] * len(completions)
def needs_torch(completions):
    import torch
    return torch.tensor([float(len(text)) for text in completions])
def no_torch(completions):
    import sys
    return [float("torch" in sys.modules)] * len(completions)
def exits(completions):
    raise BaseException("not an Exception")
def leaves(completions):
    os._exit(3)
def tools_used(completions):
    return [float(sum(m["role"] == "tool" for m in messages)) for messages in completions]
def alarmed(completions):
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, lambda *_: None)
    return [1.0] * len(completions)
"""
REDOS = "a" * 40 + "!"


@pytest.fixture
def load(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)

    def loaded(name, **more):
        return load_reward(f"mine.py:{name}", folder=tmp_path, **more)

    yield loaded
    for process in place_module._processes.values():
        process.end()
    place_module._processes.clear()


def answers(*texts, **columns):
    count = len(texts)
    return Answers(["p"] * count, texts, [(1, 2)] * count, ["stop"] * count, columns)


def rewards_of(functions, rows, **more):
    functions = functions if isinstance(functions, list) else [functions]
    return asyncio.run(grade(functions, rows, **more))


def test_a_function_named_by_path_runs_in_a_process_of_its_own_with_the_whole_contract(load, capfd):
    log = GradingLog()
    rows = answers("ab", "\ud800", "c\x00", answer=["1", None, b"\xff"])
    judge = load("judge", settings={"scale": 2.0})
    assert [row.reward for row in rewards_of(judge, rows, log=log)] == [4.0, None, 4.0]
    assert log.columns == {"seen": ["AB", "\ud800", "C\x00"]} and log.metrics == {"calls": 1.0}
    assert "printed by a reward" in capfd.readouterr().out
    log = GradingLog()
    rewards_of(judge, rows, log=log)
    assert log.metrics == {"calls": 2.0}, "what a file keeps at its top level stays from call to call"


def test_a_conversation_reaches_the_process_turn_by_turn(load):
    turn, tool = {"role": "assistant", "content": "x"}, {"role": "tool", "name": "add", "content": "3"}
    rows = dataclasses.replace(answers("x\nx", "x"), said=[(turn, tool, turn), (turn,)])
    assert [row.reward for row in rewards_of(load("tools_used"), rows)] == [1.0, 0.0]


def test_whatever_is_raised_the_process_goes_on(load):
    first = rewards_of(load("me"), answers("a"))[0].reward
    assert {row.outcome for row in rewards_of(load("exits"), answers("a", "b"))} == {"unknown"}
    assert rewards_of(load("me"), answers("a"))[0].reward == first


class Clock:
    """A process of which only the clock is known, and what is waited for."""

    deadline, left = 2.0, -1.0


def test_who_computes_and_gets_no_time_is_waited_for():
    clock = Clock()
    assert place_module._starved(10.5, 10.0, clock), "half a second of two: nothing can be said yet"
    assert not place_module._starved(11.5, 10.0, clock), "its time is used up"
    assert not place_module._starved(10.001, 10.0, clock), "it sleeps"
    assert not place_module._starved(None, 10.0, clock)
    clock.left = -7.0
    assert not place_module._starved(10.5, 10.0, clock), "and not for ever"


def test_functions_of_one_file_share_a_process_that_is_not_this_one(load):
    me = load("me")
    first = rewards_of([me, load("judge")], answers("a", answer=["1"]))[0].parts["me"]
    assert rewards_of(me, answers("a"))[0].reward == first != os.getpid()


def test_the_history_of_training_is_sent_as_it_grows(load):
    steps, history = load("steps"), []
    for step in range(4):
        state = TrainerState(global_step=step, log_history=history)
        assert rewards_of(steps, answers("a"), trainer_state=state)[0].reward == sum(range(step))
        history.append({"reward": float(step)})
    other = TrainerState(log_history=[{"reward": 5.0}] * 4)  # another run in the same program
    assert rewards_of(steps, answers("a"), trainer_state=other)[0].reward == 20.0


def test_a_reward_that_sleeps_for_ever_is_killed_and_only_its_row_is_unknown(load, caplog):
    started = time.monotonic()
    rows = rewards_of(load("sleeper", deadline=0.5), answers("a", "sleep", "b"))
    assert time.monotonic() - started < 10
    assert [row.outcome for row in rows] == ["scored", "unknown", "scored"]
    assert "within its deadline of 0.5 s, at row " in rows[1].why and "completion 'sleep'" in rows[1].why
    assert any("killed process" in message for message in caplog.messages)


def test_an_interrupted_call_leaves_its_process_to_nobody(load):
    """Ctrl-C in a notebook, and the next run in the same program: it must not meet the call that still hangs."""
    before, sleeper = set(process_module._alive), load("sleeper")
    assert rewards_of(sleeper, answers("a"))[0].reward == 1.0
    (first,) = set(process_module._alive) - before
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(grade([sleeper], answers("sleep")), 0.3))
    assert rewards_of(load("me"), answers("a"))[0].reward != first.id
    deadline = time.monotonic() + 30
    while first in process_module._alive and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(set(process_module._alive) - before) == 1, "the one that hung was killed"


def test_a_regular_expression_that_holds_the_lock_is_killed_and_its_text_is_wrong(load):
    rows = rewards_of(load("holds_the_lock", deadline=1.0), answers("aaa", REDOS, "aab"))
    assert [row.outcome for row in rows] == ["scored", "wrong", "scored"]
    assert [row.reward for row in rows] == [1.0, 0.0, 0.0]


def test_a_function_that_hangs_on_everything_is_given_up_soon(load):
    started = time.monotonic()
    rows = rewards_of(load("always_hangs", deadline=0.3), answers(*"abcdefghijklmnop"))
    assert {row.outcome for row in rows} == {"unknown"}
    assert time.monotonic() - started < 15, "four rows are enough to know"


def test_a_function_that_dies_takes_only_its_row(load):
    rows = rewards_of(load("dies"), answers("a", "crash", "b"))
    assert [row.outcome for row in rows] == ["scored", "unknown", "scored"]
    assert "killed by SIGSEGV" in rows[1].why


def test_a_raise_in_another_process_is_told_as_if_it_were_here(load):
    rows = rewards_of(load("raises"), answers("1", "x"))
    assert [row.reward for row in rows] == [1.0, None]
    assert "raised ValueError: could not convert string to float: 'x' at " in rows[1].why and "mine.py:" in rows[1].why


def test_async_functions_named_by_path_run_at_once(load):
    functions = [load("slow"), load("slow_too")]
    rewards_of(functions, answers("a"))  # starts them
    started = time.monotonic()
    assert rewards_of(functions, answers("a"))[0].parts == {"slow": 1.0, "slow_too": 2.0}
    assert time.monotonic() - started < 0.95


def test_a_process_starts_without_torch_and_may_import_it(load):
    assert rewards_of(load("no_torch"), answers("a"))[0].reward == 0.0
    assert rewards_of(load("needs_torch"), answers("abc"))[0].reward == 3.0


def test_a_function_that_sets_signals_may_in_its_process(load):
    assert rewards_of(load("alarmed"), answers("a"))[0].reward == 1.0


def test_what_cannot_be_sent_is_graded_here(load, caplog):
    class Picture:
        pass

    rows = answers("a", answer=[Picture()])
    me = load("me")
    assert rewards_of(me, rows)[0].reward == os.getpid()
    assert "runs in this process and not in one of its own" in caplog.text


def test_what_goes_over_the_wire_comes_back_the_same():
    import datetime
    from decimal import Decimal
    from fractions import Fraction

    value = {
        "text": "\ud800\x00\u202e",
        "numbers": [1, -0.5, float("inf"), 10**400, True, None],
        "bytes": b"\xff\x00",
        "day": datetime.date(2026, 1, 2),
        "moment": datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC),
        "decimal": Decimal("1.10"),
        "fraction": Fraction(1, 3),
        "set": {1, 2},
        "complex": 1 + 2j,
    }
    assert decoded(encoded(value)) == value
    with pytest.raises(UnsendableError):
        encoded([object()])


# --- functions that live in this process ----------------------------------------------------------------------------


def test_a_closure_runs_outside_the_trainers_thread():
    seen = []

    def closure(completions):
        seen.append(threading.current_thread())
        return [1.0] * len(completions)

    rewards_of(RewardFunction("closure", closure), answers("a"))
    assert seen[0] is not threading.current_thread()


def test_a_closure_that_hangs_is_named_with_its_row_and_left_behind(monkeypatch, caplog):
    monkeypatch.setattr(watch_module, "PATIENCE", 0.2)
    caplog.set_level(logging.WARNING)
    ended = threading.Event()

    def closure(completions):
        try:
            for text in completions:
                while text == "hang":
                    time.sleep(0.01)
        finally:
            ended.set()
        return [1.0] * len(completions)

    rows = rewards_of(RewardFunction("closure", closure, deadline=0.5), answers("a", "hang", "b"))
    assert [row.outcome for row in rows] == ["scored", "unknown", "scored"]
    assert "row 0 of 1 (prompt 'p', completion 'hang')" in rows[1].why
    waiting = [message for message in caplog.messages if message.startswith("waiting for reward function 'closure'")]
    assert "at row 1 of 3 (prompt 'p', completion 'hang')" in waiting[0]
    assert ended.wait(5), "a loop in Python is asked to end"


def test_nothing_is_complained_of_a_closure_that_was_interrupted(caplog):
    begun = threading.Event()

    def closure(completions):
        begun.set()
        while True:
            time.sleep(0.001)

    async def interrupted():
        grading = asyncio.ensure_future(grade([RewardFunction("closure", closure)], answers("a")))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        grading.cancel()
        await asyncio.wait({grading})
        while any(thread.name == "reward" for thread in threading.enumerate()):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)

    asyncio.run(interrupted())
    gc.collect()
    assert not [message for message in caplog.messages if "never retrieved" in message]


def test_async_closures_that_hang_or_block_are_left_behind():
    async def waits(completions):
        await asyncio.sleep(3600)

    async def blocks(completions):
        time.sleep(1.5)
        return [1.0] * len(completions)

    async def fine(completions):
        return [2.0] * len(completions)

    for hanging in (waits, blocks):
        rows = rewards_of([RewardFunction("hanging", hanging, deadline=0.3)], answers("a"))
        assert rows[0].outcome == "unknown" and "deadline of 0.3 s" in rows[0].why
        assert rewards_of(RewardFunction("fine", fine), answers("a"))[0].reward == 2.0


def test_a_closure_that_seeds_leaves_the_trainers_numbers_as_they_were():
    import random

    import numpy
    import torch

    def seeds(completions):
        random.seed(0), numpy.random.seed(0), torch.manual_seed(0)
        return [random.random()] * len(completions)

    def draws(completions):
        return [random.random() + numpy.random.random() + float(torch.rand(()))] * len(completions)

    async def draws_too(completions):
        return [random.random()] * len(completions)

    def after(functions):
        random.seed(5), numpy.random.seed(5), torch.manual_seed(5)
        graded = [rewards_of([RewardFunction(f.__name__, f) for f in functions], answers("a"))[0].parts for _ in "ab"]
        return graded, random.random(), numpy.random.random(), float(torch.rand(()))

    assert after([seeds, draws_too])[1:] == after([draws])[1:], "whatever was seeded and drawn in there"
    (first, second), *_ = after([draws, draws_too])
    assert first["draws"] != second["draws"] and first["draws_too"] != second["draws_too"], "new numbers at every call"
    assert after([draws, draws_too])[0] == [first, second], "and the same ones in a run that is repeated"


def test_a_function_that_ends_its_process_is_given_up_after_two_rows(load, caplog):
    starts = []
    before = process_module.Process.__init__

    def counted(self, *given):
        starts.append(given)
        before(self, *given)

    process_module.Process.__init__ = counted
    try:
        rows = rewards_of(load("leaves"), answers(*"abcdefgh"))
    finally:
        process_module.Process.__init__ = before
    assert {row.outcome for row in rows} == {"unknown"}
    assert "ended itself with code 3 (os._exit?)" in rows[0].why
    assert len(starts) == 3


def test_an_async_closure_that_stops_its_loop_harms_nobody():
    async def stops(completions, **columns):
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        return [1.0] * len(completions)

    async def ends(completions, **columns):
        async def leaves():
            raise SystemExit

        await asyncio.wait([asyncio.ensure_future(leaves())])
        return [3.0] * len(completions)

    async def fine(completions, **columns):
        await asyncio.sleep(0.1)
        return [2.0] * len(completions)

    functions = [RewardFunction(f.__name__, f, deadline=20.0) for f in (stops, ends, fine)]
    started = time.monotonic()
    for _ in range(3):
        assert rewards_of(functions, answers("a"))[0].parts == {"stops": 1.0, "ends": 3.0, "fine": 2.0}
    assert time.monotonic() - started < 15


def test_a_loop_that_is_left_behind_ends_what_ran_on_it_and_is_closed(tmp_path):
    script = tmp_path / "left.py"
    script.write_text(
        textwrap.dedent("""
        import asyncio, gc, os, time
        from groupwise.rewards import Answers, RewardFunction, grade
        async def waits(completions):
            asyncio.ensure_future(asyncio.sleep(3600))
            await asyncio.sleep(3600)
        def files():
            return len(os.listdir("/proc/self/fd"))
        rows = Answers(["p"], ["a"], [(1,)], ["stop"])
        before = files()
        for _ in range(3):
            asyncio.run(grade([RewardFunction("waits", waits, deadline=0.2)], rows))
        time.sleep(0.3)
        gc.collect()
        print(files() - before)
        """)
    )
    source = str(Path(thread_module.__file__).parents[3])
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, env={"PYTHONPATH": source}
    )
    assert (done.stdout, done.stderr) == ("0\n", ""), "no file is left open, and no task destroyed while pending"


def test_a_closure_that_holds_the_lock_ends_the_process_with_its_stack(tmp_path):
    script = tmp_path / "holds.py"
    script.write_text(
        textwrap.dedent("""
        import asyncio, re
        from groupwise.rewards import Answers, RewardFunction, grade
        from groupwise.rewards.isolated import thread
        thread._GRACE = 1.0
        def holds_the_lock(completions):
            return [float(bool(re.match("(a+)+$", text))) for text in completions]
        rows = Answers(["p"], ["a" * 60 + "!"], [(1,)], ["stop"])
        asyncio.run(grade([RewardFunction("judge", holds_the_lock, deadline=0.5)], rows))
        """)
    )
    source = str(Path(thread_module.__file__).parents[3])
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, env={"PYTHONPATH": source}
    )
    assert done.returncode == -signal.SIGPROF
    assert "in holds_the_lock" in done.stderr


def test_a_process_that_was_stopped_for_long_finds_nobody_late(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    script = tmp_path / "stopped.py"
    script.write_text(
        textwrap.dedent(f"""
        import asyncio, time
        from pathlib import Path
        from groupwise.rewards import Answers, RewardFunction, grade, load_reward
        from groupwise.rewards.isolated import thread, watch
        thread._GRACE, watch.STRIDE = 0.5, 0.3
        def closure(completions):
            print("here", flush=True)
            for _ in range(20):
                time.sleep(0.05)
            return [1.0] * len(completions)
        rewards = [RewardFunction("closure", closure, deadline=2.0),
                   load_reward("mine.py:slow", folder=Path({str(tmp_path)!r}), deadline=2.0)]
        rows = asyncio.run(grade(rewards, Answers(["p"], ["a"], [(1,)], ["stop"])))
        print(rows[0].outcome, flush=True)
        """)
    )
    source = str(Path(thread_module.__file__).parents[3])
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env={"PYTHONPATH": source}) as process:
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(3.5)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.read() == b"scored\n" and process.wait() == 0


def test_processes_end_with_the_one_that_started_them(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    script = tmp_path / "leaves.py"
    script.write_text(
        textwrap.dedent(f"""
        import asyncio, os
        from pathlib import Path
        from groupwise.rewards import Answers, grade, load_reward
        me = load_reward("mine.py:me", folder=Path({str(tmp_path)!r}))
        rows = asyncio.run(grade([me], Answers(["p"], ["a"], [(1,)], ["stop"])))
        print(int(rows[0].reward), flush=True)
        os.kill(os.getpid(), 9)
        """)
    )
    source = str(Path(thread_module.__file__).parents[3])
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, env={"PYTHONPATH": source}
    )
    child = int(done.stdout)
    for _ in range(50):
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split(")")[1][:3]:
            break
        time.sleep(0.1)
    else:
        pytest.fail(f"process {child} outlives the one that started it")
