"""What was said along the way is in the run folder: the log, the counts of prompts, and evaluations at the trackers."""

import pytest
from toy_runs import ROWS, Listener, small_letters, trainer_of

from groupwise.runs.folder import RunFolder
from groupwise.training.reporter import RecordingReporter

LONG = {"prompt": "abcdefghij=", "answer": "x"}


def test_messages_and_evaluations_are_written_into_the_log_and_passed_on(tmp_path):
    listener = Listener()
    settings = {"task.hold_out": 2, "task.max_prompt_tokens": 4}
    run = trainer_of(tmp_path, rows=[*ROWS, LONG], reporter=listener, **settings).train()
    lines = [line.split("  ", 1)[1] for line in (run.path / "log").read_text().splitlines()]
    assert len(lines) == 3
    assert "1 too long and dropped" in lines[0], "said before the run folder was there"
    assert lines[0] == listener.messages[0]
    assert lines[1:] == [f"{label}: {result}" for label, result in listener.evaluations]


def test_a_warm_start_and_a_run_that_fails_have_their_log_too(tmp_path):
    rows = [{"prompt": f"{letter}=", "completion": letter} for letter in "abcdef"]
    run = trainer_of(tmp_path, (), rows, **{"sft.steps": 1, "task.hold_out": 2}).sft()
    lines = [line.split("  ", 1)[1] for line in (run.path / "log").read_text().splitlines()]
    assert [line.split(":")[0] for line in lines] == ["before", "after"]

    def broken(completions, **kwargs):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        trainer_of(tmp_path, [broken], **{"run.name": "bad"}).train()
    assert "the run so far is in" in (tmp_path / "bad" / "log").read_text()


def test_what_is_said_between_two_logs_goes_into_the_next():
    reporter, first, second = RecordingReporter(Listener()), [], []
    reporter.message("early")
    with reporter.recorded(first.append):
        reporter.message("inside")
    reporter.message("between")
    with reporter.recorded(second.append):
        reporter.evaluated("after", "0.5")
    assert first == ["early", "inside"]
    assert second == ["between", "after: 0.5"]


@pytest.mark.parametrize(
    ("policy", "dropped", "truncated"), [("drop", 1, 0), ("truncate", 0, 1)], ids=["drop", "truncate"]
)
def test_the_record_of_a_run_counts_its_prompts(tmp_path, policy, dropped, truncated):
    settings = {"task.max_prompt_tokens": 4, "task.long_prompts": policy, "train.steps": 1}
    run = trainer_of(tmp_path, rows=[*ROWS, LONG], **settings).train()
    assert RunFolder.open(run.path).identity["prompts"] == {
        "train": {"problems": 13, "limit": 4, "longest": 11, "dropped": dropped, "truncated": truncated},
        "held_out": None,
    }
    held = trainer_of(tmp_path, **{"task.hold_out": 3, "run.name": "b", "task.max_prompt_tokens": 4}).train()
    counts = held.identity["prompts"]["held_out"]
    assert counts == {"problems": 3, "limit": 4, "longest": 2, "dropped": 0, "truncated": 0}


@pytest.mark.parametrize("verb", ["train", "sft"])
def test_trackers_get_evaluations_at_their_step(tmp_path, verb):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    rows = [{**row, "completion": "a"} for row in ROWS]
    settings = {"run.trackers": ["tensorboard"], "task.hold_out": 2, "evaluation.every": 1, "sft.steps": 2}
    pass_at = {"evaluation.pass_at": [2], "evaluation.samples": 2}
    trainer = trainer_of(tmp_path, rows=rows, **settings, **pass_at)
    run = trainer.train() if verb == "train" else trainer.sft()
    events = accumulator.EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    for name in ("accuracy", "reward", "pass@2"):
        sent = [(event.step, event.value) for event in events.Scalars(f"eval/{name}")]
        assert sent == [(row["step"], pytest.approx(row[name])) for row in run.evaluations()]
        assert [step for step, _ in sent] == [0, 1, 2]
    assert [event.step for event in events.Scalars("loss")] == [1, 2]


def test_completions_that_nobody_graded_are_told_once_by_name(tmp_path):
    listener = Listener()

    def only_some(completions, answer, trainer_state, **kwargs):
        graded = small_letters(completions)
        return graded if trainer_state.global_step == 1 else [None, *graded[1:]]

    run = trainer_of(tmp_path, [only_some], reporter=listener, **{"train.steps": 3}).train()
    assert [share for _, share in run.metrics.series("ungraded")] == [0.0, 0.125, 0.125]
    first = run.rollouts(2)[0].problem_id
    told = [message for message in listener.messages if "graded" in message]
    assert len(told) == 1
    assert told[0].startswith("step 2: no reward function graded 1 of the 8 completions of this step")
    assert f"for the problem '{first}'" in told[0]


def test_a_reward_reads_what_transformers_own_state_has(tmp_path):
    from transformers import TrainerState as Theirs

    names, histories = list(vars(Theirs())), []

    def reads_all(completions, trainer_state, **kwargs):
        values = {name: getattr(trainer_state, name) for name in names}
        assert values["is_world_process_zero"] is values["is_local_process_zero"] is True
        histories.append([(row["step"], row["reward"]) for row in trainer_state.log_history])
        return small_letters(completions)

    run = trainer_of(tmp_path, [reads_all], **{"train.steps": 3}).train()
    rewards = run.metrics.series("reward")
    assert len(rewards) == 3
    assert histories == [rewards[:0], rewards[:1], rewards[:2]]
