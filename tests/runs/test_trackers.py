"""Mirrors of the metrics: real event files, a real trackio, a toy wandb; and trackers that fail."""

import math
import sys
from types import ModuleType

import pytest

from groupwise.errors import RecipeError
from groupwise.runs.trackers import TRACKERS, Trackers, open_trackers


def opened(names, folder, said=None, **settings):
    report = [].append if said is None else said.append
    return open_trackers(names, name="demo", folder=folder, settings=settings, report=report)


def test_tensorboard_reads_what_was_logged(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trackers = opened(["tensorboard"], tmp_path)
    trackers.log(1, {"reward": 0.25, "kl": 0.5})
    trackers.log(2, {"reward": 0.75, "kl": math.nan})
    trackers.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["kl", "reward"]
    assert [(event.step, event.value) for event in events.Scalars("reward")] == [(1, 0.25), (2, 0.75)]


def test_tensorboard_does_not_load_torch(tmp_path):
    pytest.importorskip("tensorboard")
    import subprocess

    script = (
        "import sys; from pathlib import Path; from groupwise.runs.trackers import open_trackers\n"
        "open_trackers(['tensorboard'], name='a', folder=Path(sys.argv[1]), settings={}, report=print).close()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)


def test_trackio_keeps_what_was_logged(tmp_path):
    pytest.importorskip("trackio")
    import os
    import subprocess

    script = (
        "import sys; from pathlib import Path; from groupwise.runs.trackers import open_trackers\n"
        "said = []\n"
        "t = open_trackers(['trackio'], name='demo', folder=Path('.'), settings={'seed': 7}, report=said.append)\n"
        "t.log(1, {'reward': 0.25}); t.log(2, {'reward': 0.75}); t.close()\n"
        "from trackio.sqlite_storage import SQLiteStorage\n"
        "rows = SQLiteStorage.get_logs('groupwise', 'demo')\n"
        "assert [(row['step'], row['reward']) for row in rows] == [(1, 0.25), (2, 0.75)], rows\n"
        "assert not said, said\n"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class ToyWandb(ModuleType):
    """Remembers how it was called."""

    def __init__(self):
        super().__init__("wandb")
        self.calls = []

    def Settings(self, **settings):  # noqa: N802
        return settings

    def init(self, **arguments):
        self.calls.append(("init", arguments))
        return self

    def log(self, metrics, step):
        self.calls.append(("log", metrics, step))

    def finish(self):
        self.calls.append(("finish",))


def test_wandb_is_called_as_it_wants_to_be(tmp_path, monkeypatch):
    wandb = ToyWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    trackers = opened(["wandb"], tmp_path, seed=7, judge={"api_key": "canary", "url": "https://me:canary@host"})
    trackers.log(1, {"reward": 0.25})
    trackers.close()
    trackers.close()
    (_, begun), *later = wandb.calls
    assert later == [("log", {"reward": 0.25}, 1), ("finish",)]
    assert (begun["project"], begun["name"], begun["dir"]) == ("groupwise", "demo", str(tmp_path))
    assert begun["config"] == {"seed": 7, "judge": {"api_key": "[redacted]", "url": "https://me:[redacted]@host"}}
    assert begun["settings"]["x_disable_meta"] is True, "or the command line, secrets and all, would be sent"


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_a_missing_package_names_what_to_install(tmp_path, monkeypatch, name):
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RecipeError, match=rf"run\.trackers asks for {name}.*pip install 'groupwise\[{name}\]'"):
        opened([name], tmp_path)


class ToyTracker:
    """Fails in the method it is told to."""

    def __init__(self, fails_in=""):
        self.fails_in = fails_in
        self.seen = []

    def _do(self, what, *values):
        self.seen.append((what, *values))
        if what == self.fails_in:
            raise ConnectionError("no route to hf_Canary0123456789Canary")

    def start(self, name, folder, settings):
        self._do("start")

    def log(self, step, metrics):
        self._do("log", step)

    def close(self):
        self._do("close")


@pytest.mark.parametrize(
    ("fails_in", "seen"),
    [
        ("start", [("start",)]),
        ("log", [("start",), ("log", 1)]),
        ("close", [("start",), ("log", 1), ("log", 2), ("close",)]),
    ],
)
def test_a_tracker_that_fails_is_reported_once_and_dropped(tmp_path, fails_in, seen):
    bad, good, said = ToyTracker(fails_in), ToyTracker(), []
    trackers = Trackers({"bad": bad, "good": good}, said.append)
    trackers.start("demo", tmp_path, {})
    trackers.log(1, {"reward": 0.5})
    trackers.log(2, {"reward": 0.5})
    trackers.close()
    trackers.close()
    assert bad.seen == seen
    assert good.seen == [("start",), ("log", 1), ("log", 2), ("close",)]
    assert said == [
        f"tracker bad failed ({fails_in}: no route to [redacted]) and was dropped; the run goes on without it"
    ]


def test_ctrl_c_is_not_a_failure_of_a_tracker(tmp_path):
    class Interrupted(ToyTracker):
        def log(self, step, metrics):
            raise KeyboardInterrupt

    trackers = Trackers({"a": Interrupted()}, print)
    with pytest.raises(KeyboardInterrupt):
        trackers.log(1, {})
