"""A checkpoint whose digests are right and whose contents are not ours: one message that names it, and no stack."""

import hashlib
import json

import pytest
from toy_runs import trainer_of

from groupwise.errors import RunError

RUN = {"train.steps": 1, "checkpoints.every": 1}


def signed(folder):
    """The manifest as it would be, had we written these files."""
    body = json.loads((folder / "MANIFEST.json").read_text())
    del body["sha256"]
    for name in body["files"]:
        content = (folder / name).read_bytes()
        body["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    (folder / "MANIFEST.json").write_text(json.dumps({**body, "sha256": digest}))


@pytest.fixture
def checkpoint(tmp_path):
    return trainer_of(tmp_path, **RUN).train().path / "checkpoints" / "step_000001"


def moment(value):
    return lambda state: state["learner"]["optimizer"]["moments"]["0"].__setitem__("exp_avg", value)


STRANGE = {
    "not a table": lambda state: state.__setitem__("facts", 10**30),
    "a tensor that is not there": moment({"$tensor": "nowhere"}),
    "a name that is none": moment({"$tensor": []}),
    "a moment of another shape": moment({"$tensor": "learner.optimizer.moments.1.exp_avg"}),
    "a moment that is no tensor": moment("x"),
    "a place that no run gets to": lambda state: state["supply"].__setitem__("place", 10**30),
    "nothing said of what was told": lambda state: state["run"].__setitem__("told", 3),
    "random numbers of another kind": lambda state: state["random"].__setitem__("torch", None),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_no_checkpoint_of_ours_holds_is_told(tmp_path, checkpoint, kind):
    state = json.loads((checkpoint / "state.json").read_text())
    STRANGE[kind](state)
    (checkpoint / "state.json").write_text(json.dumps(state))
    signed(checkpoint)
    with pytest.raises(RunError, match="is whole, but what it holds is nothing that this groupwise can go on from"):
        trainer_of(tmp_path, **{**RUN, "train.steps": 2}).train()


def test_state_that_is_deeper_than_python_goes(tmp_path, checkpoint):
    (checkpoint / "state.json").write_text('{"x":' * 900 + "1" + "}" * 900)
    signed(checkpoint)
    with pytest.raises(RunError, match="RecursionError"):
        trainer_of(tmp_path, **{**RUN, "train.steps": 2}).train()


def test_signed_as_it_was_it_is_gone_on_from(tmp_path, checkpoint):
    signed(checkpoint)
    run = trainer_of(tmp_path, **{**RUN, "train.steps": 2}).train()
    assert run.checkpoints.pointed("latest") == 2
