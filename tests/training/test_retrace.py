"""Later steps computed again: through a checkpoint, or from the beginning, whatever the learner carries along."""

import pytest
from toy_runs import ROWS, trainer_of

from groupwise.errors import Paused, RunError
from groupwise.runs.folder import RunFolder
from groupwise.training import replay

WAYS = {
    "full": {},
    "lora with dropout": {"lora.r": 2, "lora.dropout": 0.3},
    "a moving reference": {"algorithm.beta": 0.1, "reference.every": 2},
    "KL in the reward, a beta that moves": {
        "algorithm": {"beta": 0.1, "kl_in": "reward", "beta_control": "proportional", "settings": {"kl_target": 0.1}},
    },
    "several updates": {"learner.passes": 2, "learner.updates_per_batch": 2},
    "dynamic sampling": {"algorithm.preset": "dapo", "algorithm.selection": "dynamic_sampling"},
}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    from toys import char_tokenizer, tiny_model

    folder = tmp_path_factory.mktemp("start")
    tiny_model().save_pretrained(folder)
    char_tokenizer().save_pretrained(folder)
    return str(folder)


def recorded(tmp_path, start, monkeypatch, **settings):
    """A run of five steps with checkpoints of the steps 3 and 5, and its trainer for a replay."""
    usual = {"train.steps": 5, "checkpoints.every": 3, "checkpoints.keep": 2}
    made = lambda: trainer_of(tmp_path, model=start, rows=ROWS, **{**usual, **settings})  # noqa: E731
    monkeypatch.setattr(replay, "_parts", lambda run: made().parts)  # its reward is an object of this test
    return made().train()


@pytest.mark.parametrize("way", WAYS)
def test_every_step_comes_out_the_same(tmp_path, start, monkeypatch, way):
    run = recorded(tmp_path, start, monkeypatch, **WAYS[way])
    for step, how in ((2, "began with, and 1 steps"), (4, "the checkpoint of step 3"), (5, "of step 3, and 1 steps")):
        found = {compared.what: compared for compared in replay.replay_step(run, step)}
        assert how in found["weights"].note
        assert [compared for compared in found.values() if not compared.same] == [], step
        assert found["completions"].count >= 8 and found["grad_norm"].count == 1


def test_a_change_on_the_way_is_found(tmp_path, start, monkeypatch):
    """The rollouts of step 4 are exchanged for those of step 3: step 5 comes from other weights then."""
    run = recorded(tmp_path, start, monkeypatch)
    folder = run.path / "rollouts"
    (folder / "000004.parquet").write_bytes((folder / "000002.parquet").read_bytes())
    found = {compared.what: compared for compared in replay.replay_step(run, 5)}
    assert not found["loss"].same or not found["completions"].same
    (folder / "000004.parquet").unlink()
    with pytest.raises(RunError, match="no rollouts of step 4, on the way from step 3 to 5"):
        list(replay.replay_step(run, 5))


def test_a_replay_changes_nothing(tmp_path, start, monkeypatch):
    run = recorded(tmp_path, start, monkeypatch)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    list(replay.replay_step(run, 4))
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_steps_after_a_way_back_are_learnt_at_its_rate(tmp_path, start, monkeypatch):
    settings = {
        "alarms.action": "roll_back",
        "alarms.act_on": ["truncation"],
        "alarms.settings": {"truncation": {"share": 1e-9, "steps": 4}},
        "alarms.roll_back_steps": 1,
        "alarms.roll_backs": 1,
        "checkpoints.every": 1,
        "checkpoints.keep": 3,
        "sampling.max_new_tokens": 2,
    }
    with pytest.raises(Paused):
        recorded(tmp_path, start, monkeypatch, **settings)
    run = RunFolder.open(tmp_path / "toy")
    assert all(compared.same for compared in replay.replay_step(run, 4))
    assert [row["learning_rate"] for row in run.metrics.read()][2:] == pytest.approx([1e-2, 5e-3])
