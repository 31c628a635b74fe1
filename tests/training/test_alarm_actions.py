"""What an alarm does beside speaking: a pause that somebody must end, a good end, a way back at a lower rate."""

import pytest
from toy_runs import Listener, trainer_of

from groupwise.errors import Paused, RecipeError
from groupwise.runs.compare import differences
from groupwise.runs.files import read_rows
from groupwise.runs.folder import RunFolder
from groupwise.training.stop import Stop

CUT_FOR_SIX = {
    "alarms.act_on": ["truncation"],
    "alarms.settings": {"truncation": {"share": 1e-9, "steps": 6}},
    "alarms.off": ["no_signal", "collapse", "repetition", "length", "clipping", "outlier", "held_out", "kl"],
    "sampling.max_new_tokens": 2,
    "train.steps": 9,
    "checkpoints.every": 2,
    "checkpoints.keep": 3,
}
BACK = {"alarms.roll_back_steps": 2, "alarms.roll_backs": 1}
"""Completions of two tokens are always cut, so the alarm comes with the sixth step, and again after each way back."""


def trainer(tmp_path, action, name="toy", reporter=None, **settings):
    settings = {
        **CUT_FOR_SIX,
        **(BACK if action == "roll_back" else {}),
        "alarms.action": action,
        "run.name": name,
        **settings,
    }
    return trainer_of(tmp_path, reporter=reporter, **settings)


def steps_of(run):
    return [row["step"] for row in run.metrics.read()]


def test_tell_goes_on(tmp_path):
    run = trainer(tmp_path, "tell").train()
    assert steps_of(run) == list(range(1, 10))
    assert [row["alarm"] for row in read_rows(run.path / "alarms.jsonl")] == ["truncation"]


def test_stop_ends_in_good_order(tmp_path):
    heard = Listener()
    run = trainer(tmp_path, "stop", reporter=heard).train()
    assert steps_of(run) == list(range(1, 7))
    assert run.status == "finished" and run.checkpoints.pointed("latest") == 6
    assert "the run ends: alarm truncation at step 6 (alarms.action)" in heard.messages


def test_pause_saves_and_waits_for_somebody(tmp_path):
    with pytest.raises(Paused, match=r"alarm truncation at step 6.*the same command goes on from step 6"):
        trainer(tmp_path, "pause").train()
    run = RunFolder.open(tmp_path / "toy")
    assert run.status == "interrupted" and not run.model_path.exists()
    again = trainer(tmp_path, "pause").train()
    assert again.status == "finished" and steps_of(again) == list(range(1, 10))
    never = trainer(tmp_path, "tell", name="never").train()
    assert differences(never, again) == []


def test_roll_back_goes_on_from_the_last_good_checkpoint_at_half_the_rate(tmp_path):
    heard = Listener()
    with pytest.raises(Paused, match="the same command goes on from step 6"):  # the second time: one way back is enough
        trainer(tmp_path, "roll_back", reporter=heard, **{"optimizer.schedule": "constant"}).train()
    run = RunFolder.open(tmp_path / "toy")
    assert steps_of(run) == [1, 2, 3, 4, 5, 6]
    rates = [row["learning_rate"] for row in run.metrics.read()]
    assert rates == pytest.approx([1e-2] * 4 + [5e-3] * 2)
    back, again = read_rows(run.path / "alarms.jsonl")
    assert (back["alarm"], back["step"], back["evidence"]) == ("roll_back", 4, {"from": 6, "learning_rate": 0.5})
    assert (again["alarm"], again["step"]) == ("truncation", 6)
    assert any("taken back from step 6 to step 4, the learning rate to 0.5" in text for text in heard.messages)
    assert any("1 times are enough" in text for text in heard.messages)
    assert heard.depth == 0


def test_a_run_that_was_rolled_back_is_one_that_was_slower_from_there(tmp_path):
    """The weights after the way back are those of a run whose rate was halved after step 4."""
    settings = {"optimizer.schedule": "constant", "algorithm.beta": 0.1, "reference.every": 3}
    with pytest.raises(Paused):
        trainer(tmp_path, "roll_back", **settings).train()
    rolled = RunFolder.open(tmp_path / "toy")
    stop = Stop()
    first = trainer(tmp_path, "tell", "by-hand", Listener(lambda n: n == 4 and stop.pause("now")), **settings)
    with pytest.raises(Paused):
        first.train(stop)
    second = trainer(tmp_path, "pause", "by-hand", **{**settings, "optimizer.lr": 5e-3})
    with pytest.raises(Paused):
        second.train()
    by_hand = RunFolder.open(tmp_path / "by-hand")
    assert differences(rolled, by_hand) == ["run of the last checkpoint"]  # one of them was turned back


def test_a_kill_after_the_way_back_forgets_nothing(tmp_path):
    stop = Stop()
    steps = []
    heard = Listener(lambda n: (steps.append(n), n == 7 and stop.pause("now")))  # one step behind the way back
    with pytest.raises(Paused):
        trainer(tmp_path, "roll_back", reporter=heard).train(stop)
    assert RunFolder.open(tmp_path / "toy").checkpoints.newest().checkpoint.state()["run"]["turned_back"] == 1
    for name in ("toy", "straight"):
        with pytest.raises(Paused):
            trainer(tmp_path, "roll_back", name).train()
    assert differences(*(RunFolder.open(tmp_path / name) for name in ("toy", "straight"))) == []


def test_without_an_old_enough_checkpoint_it_pauses(tmp_path):
    heard = Listener()
    settings = {"alarms.settings": {"truncation": {"share": 1e-9, "steps": 2}}}
    with pytest.raises(Paused):
        trainer(tmp_path, "roll_back", reporter=heard, **settings).train()
    assert any("no checkpoint is old enough" in text for text in heard.messages)


def test_checkpoints_that_do_not_reach_back_are_said_before(tmp_path):
    with pytest.raises(RecipeError, match=r"those that are kept reach back 0\. Raise checkpoints.keep"):
        trainer(tmp_path, "roll_back", **{"checkpoints.keep": 1})
    with pytest.raises(RecipeError, match=r'how to roll back, and alarms\.action is "stop"'):
        trainer(tmp_path, "stop", **BACK)
