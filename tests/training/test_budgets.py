"""When a run has had enough."""

from dataclasses import replace

import pytest
from toy_runs import ROWS, Listener, trainer_of

from groupwise.config.budgets import BudgetsSection
from groupwise.runs.compare import differences
from groupwise.runs.folder import RunFolder
from groupwise.tasks.rows import rows as rows_of
from groupwise.training.budgets import Budgets, Spent
from groupwise.training.keeper import Keeper
from groupwise.training.report import StepReport


def rows(*accuracies):
    return [{"step": i, "accuracy": accuracy} for i, accuracy in enumerate(accuracies)]


STEPS = [{"step": 1, "sampled_tokens": 600.0}, {"step": 2, "sampled_tokens": 400.0}]


@pytest.mark.parametrize(
    ("settings", "accuracies", "said"),
    [
        ({}, (0.1, 0.1, 0.1), None),
        ({"sampled_tokens": 1000}, (), "1,000 tokens were sampled"),
        ({"sampled_tokens": 1001}, (), None),
        ({"accuracy": 0.9}, (0.95, 0.89), None),  # the newest counts
        ({"accuracy": 0.9}, (0.5, 0.9), "0.900 has reached"),
        ({"patience": 2}, (0.5, 0.6, 0.6), None),
        ({"patience": 2}, (0.5, 0.6, 0.6, 0.55), "not been better than 0.600 for 2 evaluations"),
        ({"patience": 1}, (), None),
    ],
)
def test_tokens_and_accuracy(settings, accuracies, said):
    met = Budgets(BudgetsSection(**settings)).met(STEPS, rows(*accuracies))
    assert (met is None) if said is None else said in met


def test_hours_count_earlier_attempts():
    clock = iter([100.0, 1800.0, 1901.0, 1901.0]).__next__
    budgets = Budgets(BudgetsSection(hours=1.0), Spent(seconds=1800.0), clock=clock)
    assert budgets.met([], []) is None  # 1800 + 1700 s
    assert budgets.met([], []).startswith("1.00 hours have passed")


def test_a_budget_of_seconds_is_not_told_as_none():
    clock = iter([0.0, 9.0, 9.0]).__next__
    assert str(Budgets(BudgetsSection(hours=0.002), clock=clock).met([], [])).startswith("0.0025 hours have passed")


def test_an_evaluation_without_gold_answers_ends_nothing():
    assert Budgets(BudgetsSection(accuracy=0.1, patience=1)).met([], [{"step": 0, "reward": 1.0}] * 3) is None


def test_tokens_that_no_row_tells_of_count_too():
    section = BudgetsSection(sampled_tokens=1100)
    assert Budgets(section, Spent(tokens=99.0)).met(STEPS, []) is None
    assert "1,100 tokens were sampled" in Budgets(section, Spent(tokens=100.0)).met(STEPS, [])


class LeftError(BaseException):
    """What ends a process at the end of a step."""


def leaving_after(step):
    def leave(count):
        if count == step:
            raise LeftError

    return Listener(leave)


def right(text, columns):
    return text.startswith(columns["answer"])


def budgeted(tmp_path, name, reporter=None, **settings):
    task = rows_of(ROWS, hold_out=2)
    usual = {"train.steps": 12, "checkpoints.every": 2, "optimizer.lr": 1e-6, "run.name": name}
    return trainer_of(tmp_path, rows=replace(task, is_correct=right), reporter=reporter, **{**usual, **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {"budgets.sampled_tokens": 300, "sampling.max_new_tokens": 6},  # 48 or fewer a step
        {"budgets.patience": 3, "evaluation.every": 2},
    ],
    ids=["tokens", "patience"],
)
def test_a_run_that_was_left_ends_at_the_same_step(tmp_path, monkeypatch, settings):
    straight = budgeted(tmp_path, "straight", **settings).train()
    steps = [row["step"] for row in straight.metrics.read()]
    assert 5 < len(steps) < 12, "the budget ended it"
    with pytest.raises(LeftError):
        budgeted(tmp_path, "left", leaving_after(1), **settings).train()
    with pytest.raises(LeftError), monkeypatch.context() as killed:
        killed.setattr(Keeper, "close", lambda keeper, seconds: keeper._beside.finish())  # the last step is lost
        budgeted(tmp_path, "left", leaving_after(4), **settings).train()
    run = budgeted(tmp_path, "left", **settings).train()
    assert differences(straight, run) == []
    assert run.status == "finished"


def test_time_counts_over_attempts_with_what_a_kill_lost_of_them(tmp_path, monkeypatch):
    """Each step is said to take an hour: two attempts of three steps, none of which was saved, and a third."""
    monkeypatch.setattr(StepReport, "metrics", lambda report: {"step_seconds": 3600.0})
    settings = {"checkpoints.every": 0, "budgets.hours": 8.5}
    for _ in range(2):
        with pytest.raises(LeftError), monkeypatch.context() as killed:
            killed.setattr(Keeper, "close", lambda keeper, seconds: keeper._beside.finish())
            budgeted(tmp_path, "left", leaving_after(3), **settings).train()
        assert RunFolder.open(tmp_path / "left").checkpoints.steps() == []
    heard = Listener()
    with pytest.raises(LeftError):
        budgeted(tmp_path, "left", leaving_after(1), **settings).train()
    seconds = RunFolder.open(tmp_path / "left").identity["seconds"]
    assert 6 * 3600 < seconds < 6 * 3600 + 60, "six lost ones; that of the last is told by the clock"
    run = budgeted(tmp_path, "left", reporter=heard, **{**settings, "budgets.hours": 6.0}).train()
    assert any("6.00 hours have passed (budgets.hours = 6)" in text for text in heard.messages)
    assert len(run.metrics.read()) == 2


def test_tokens_of_steps_that_an_alarm_took_back_count(tmp_path):
    """Two tokens for each of 8 completions a step; taken back from step 6 to step 4, so two steps come twice."""
    alarms = {
        "alarms.action": "roll_back", "alarms.act_on": ["truncation"], "alarms.roll_back_steps": 2,
        "alarms.roll_backs": 1, "alarms.settings": {"truncation": {"share": 1e-9, "steps": 6}},
        "alarms.repeat_after": 50, "sampling.max_new_tokens": 2, "checkpoints.keep": 3,
    }  # fmt: skip
    heard = Listener()
    run = budgeted(tmp_path, "toy", heard, **alarms, **{"budgets.sampled_tokens": 16 * 7}).train()
    assert any("taken back from step 6 to step 4" in text for text in heard.messages)
    assert [row["step"] for row in run.metrics.read()] == [1, 2, 3, 4, 5], "seven were sampled"
