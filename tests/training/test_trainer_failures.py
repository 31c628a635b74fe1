"""Runs that end badly: what is said, what stays, and that nothing half-done is left behind."""

import asyncio
import gc
import signal
import threading

import pytest
from toy_runs import ROWS, Listener, loaded, small_letters, trainer_of

from groupwise.errors import FinishedError, LearnerError, RecipeError, RewardError, TaskError
from groupwise.learner.learner import Learner
from groupwise.rewards import RewardFunction, Unknown
from groupwise.runs.folder import RunFolder


@pytest.fixture
def interrupts():
    """Ctrl-C as a program has it, whatever the test runner did to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def on_call(count, action):
    """A reward that does something on its `count`-th call."""
    calls = []

    def judge(completions, **kwargs):
        calls.append(len(completions))
        if len(calls) == count:
            action()
        return small_letters(completions)

    return judge


def test_a_reward_that_raises_names_itself_and_its_row_and_loses_nothing(tmp_path):
    bad = []

    def fragile(completions, answer, trainer_state, **kwargs):
        if trainer_state.global_step == 2:
            bad.append(answer[-1])  # the step's second problem, whose completions are rows 4 to 7
            return [int("no number") if a == bad[0] else 1.0 for a in answer]
        return small_letters(completions)

    stopping = RewardFunction("fragile", fragile, on_error="stop")
    with pytest.raises(RewardError, match=r"'fragile' raised ValueError.*no number.*row 4"):
        trainer_of(tmp_path, [stopping], **{"train.steps": 4, "task.hold_out": 2}).train()
    run = RunFolder.open(tmp_path / "toy")
    assert run.status == "failed"
    assert "fragile" in run.identity["error"]
    assert not (run.path / "lock").exists()
    assert [row["step"] for row in run.metrics.read()] == [1]
    assert run.rollout_steps() == [1]
    assert len(run.rollouts(1)) == 8
    assert [row["label"] for row in run.evaluations()] == ["before"]
    assert run.trained_model().is_dir(), "the step that was made is not lost"


def test_a_few_unknown_grades_are_told_and_many_end_the_run(tmp_path):
    listener = Listener()

    def fails_on(count, step):
        def fragile(completions, completion_ids, trainer_state, **kwargs):
            broken = trainer_state.global_step == step
            return [Unknown("the judge is down") if broken and i < count else 1.0 for i in range(len(completions))]

        return fragile

    settings = {"train.steps": 4, "train.prompts_per_step": 4, "evaluation.before": False}
    run = trainer_of(tmp_path, [fails_on(3, 3)], reporter=listener, **settings).train()
    assert [share for _, share in run.metrics.series("unknown")] == [0.0, 0.0, 3 / 16, 0.0]
    told = [message for message in listener.messages if "could not be graded" in message]
    assert told == [
        "step 3: 3 of the last 48 rollouts could not be graded (6%); nothing is learnt from them. "
        "fragile: the judge is down"
    ]
    first, fine = run.rollouts(3)[0], run.rollouts(3)[4]
    assert (first.outcome, first.reward, first.advantage, first.why) == (
        "unknown",
        None,
        0.0,
        "fragile: the judge is down",
    )
    assert (fine.outcome, fine.reward, fine.why) == ("scored", 1.0, "")
    with pytest.raises(RewardError, match=r"step 1: 4 of the last 16 rollouts .*25%.*more than 20%.*the judge is down"):
        trainer_of(tmp_path, [fails_on(4, 1)], **settings, **{"run.name": "bad"}).train()
    assert RunFolder.open(tmp_path / "bad").rollout_steps() == [1], "what could not be graded is there to look at"


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ([1.0], "returned 1 values for 8 completions"),
        ([float("nan")] * 8, "returned nan for row 0"),
        (["good"] * 8, "returned 'good'"),
        (None, "NoneType"),
    ],
)
def test_a_reward_that_is_none_names_itself(tmp_path, returned, said):
    def strange(completions, **kwargs):
        return returned

    with pytest.raises(RewardError, match=f"'strange'.*{said}"):
        trainer_of(tmp_path, [strange]).train()
    assert RunFolder.open(tmp_path / "toy").status == "failed"


def press_ctrl_c():
    signal.raise_signal(signal.SIGINT)


def raise_interrupt():
    raise KeyboardInterrupt


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("action", [press_ctrl_c, raise_interrupt])
def test_ctrl_c_keeps_the_model_and_the_steps_so_far(tmp_path, action):
    listener = Listener()
    judge = on_call(2, action)
    with pytest.raises(KeyboardInterrupt):
        trainer_of(tmp_path, [judge], reporter=listener, **{"train.steps": 50}).train()
    run = RunFolder.open(tmp_path / "toy")
    assert run.status == "interrupted"
    assert len(run.metrics.read()) == len(run.rollout_steps()) in (1, 2)
    assert loaded(run.trained_model()).config.vocab_size == 100
    assert any("goes on from step" in message for message in listener.messages) or action is press_ctrl_c
    assert listener.depth == 0


@pytest.mark.usefixtures("interrupts")
def test_ctrl_c_in_an_async_reward(tmp_path):
    async def judge(completions, **kwargs):
        await asyncio.sleep(0)
        press_ctrl_c()
        await asyncio.sleep(30)

    with pytest.raises(KeyboardInterrupt):
        trainer_of(tmp_path, [judge]).train()
    run = RunFolder.open(tmp_path / "toy")
    assert run.status == "interrupted"
    assert run.checkpoints.steps() == [], "nothing was learnt yet"


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("where", ["while grading", "while sampling", "in a reward"])
def test_the_stop_button_of_a_notebook_stops_the_training(tmp_path, caplog, where):
    """There the loop runs in the main thread, where Ctrl-C arrives, and the training in another."""

    def stop_button():
        assert threading.current_thread() is not threading.main_thread()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    # What follows the report of a step is the next one's sampling.
    listener = Listener(lambda count: stop_button() if (count, where) == (2, "while sampling") else None)
    judge = {
        "while grading": on_call(2, stop_button),
        "while sampling": small_letters,
        "in a reward": on_call(2, raise_interrupt),
    }[where]

    async def cell():
        trainer_of(tmp_path, [judge], reporter=listener, **{"train.steps": 2000}).train()

    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(cell())
    finally:
        loop.close()
    run = RunFolder.open(tmp_path / "toy")
    assert run.status == "interrupted"
    steps = len(run.metrics.read())
    assert 1 <= steps < 2000
    assert run.trained_model().is_dir()
    assert not any("ThreadPool" in thread.name for thread in threading.enumerate())
    assert len(run.metrics.read()) == steps
    gc.collect()
    assert "pending" not in caplog.text  # asyncio's complaint about a task that was left behind


def test_an_update_that_cannot_be_made_ends_the_run(tmp_path):
    with pytest.raises(LearnerError, match=r"the sampler's logprob is nan at token \d.*learning rate"):
        trainer_of(tmp_path, **{"optimizer.lr": 1e30, "train.steps": 5}).train()
    run = RunFolder.open(tmp_path / "toy")
    assert run.status == "failed"
    assert [row["step"] for row in run.metrics.read()] == [1]


# --- before anything is paid for ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"algorithm.advantage": "group_normalised"}, RecipeError, 'Did you mean "group_normalized"'),
        ({"optimizer.kind": "adamw_8bit"}, RecipeError, 'use "adamw"'),
        ({"sampling.max_new_tokens": 64}, TaskError, "no room for prompts"),
        ({"task.max_prompt_tokens": 1}, TaskError, "all 12 prompts"),
    ],
)
def test_a_mistake_leaves_the_name_of_the_run_free(tmp_path, settings, error, said):
    with pytest.raises(error, match=f"(?i){said}"):
        trainer_of(tmp_path, **settings).train()
    assert trainer_of(tmp_path).train().status == "finished"


def test_without_a_reward_there_is_nothing_to_train_on(tmp_path):
    with pytest.raises(RecipeError, match="rewards: none is named"):
        trainer_of(tmp_path, []).train()
    assert trainer_of(tmp_path).train().status == "finished"


def test_a_folder_that_is_taken_is_never_written_to(tmp_path):
    run = trainer_of(tmp_path).train()
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(FinishedError, match="is finished"):
        trainer_of(tmp_path).train()
    assert before == {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_dropped_prompts_are_told(tmp_path):
    listener = Listener()
    rows = [*ROWS, {"prompt": "a long one " * 5, "answer": "A"}]
    trainer_of(tmp_path, rows=rows, reporter=listener, **{"task.max_prompt_tokens": 10}).train()
    assert any("1 too long and dropped: rows/train/12" in message for message in listener.messages)


def test_memory_that_ends_costs_no_step_of_the_model(tmp_path, monkeypatch):
    """Not one of our errors, and the model is kept all the same."""
    once, update = [], Learner.update

    async def fails_the_second_time(self, *args, **kwargs):
        if once:
            raise RuntimeError("out of memory")
        once.append(True)
        return await update(self, *args, **kwargs)

    monkeypatch.setattr(Learner, "update", fails_the_second_time)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer_of(tmp_path, **{"train.steps": 3}).train()
    run = RunFolder.open(tmp_path / "toy")
    assert run.status == "failed"
    assert any(run.trained_model().glob("*.safetensors"))
