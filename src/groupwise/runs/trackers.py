"""Mirrors of the metrics in tensorboard, wandb or trackio. The run folder has everything in any case.

    trackers = open_trackers(["tensorboard"], name="demo", folder=run.path, settings=recipe, report=reporter.message)
    trackers.log(1, {"reward": 0.25})
    trackers.close()

A package is imported only when it is asked for; one that is not installed is an error before anything is paid for. What
fails later is a mirror, not the run: the tracker that raises is reported once and dropped.

To add one: a class with the three methods of `Tracker`, a line in `TRACKERS`, its name in the recipe's `run.trackers`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from groupwise.errors import RecipeError
from groupwise.runs.redaction import redact_text, redacted

PROJECT = "groupwise"


class Tracker(Protocol):
    """Three methods. `start` is called once, before the first `log`; `close` once, even after an interruption."""

    def start(self, name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        """Begin a run. `folder` is the run folder; `settings` is the recipe as plain values, without secrets."""
        ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of a step."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class TensorboardTracker:
    """Event files in `<run folder>/tensorboard`: `tensorboard --logdir runs` shows all runs side by side."""

    def __init__(self) -> None:
        # The protocol buffers themselves: `torch.utils.tensorboard` would load torch.
        self._writers = import_module("tensorboard.summary.writer.event_file_writer")
        self._events = import_module("tensorboard.compat.proto.event_pb2")
        self._summaries = import_module("tensorboard.compat.proto.summary_pb2")

    def start(self, name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        """Open an event file."""
        self._writer = self._writers.EventFileWriter(str(folder / "tensorboard"), flush_secs=10)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One event with a scalar per metric."""
        values = [self._summaries.Summary.Value(tag=tag, simple_value=value) for tag, value in metrics.items()]
        summary = self._summaries.Summary(value=values)
        self._writer.add_event(self._events.Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WandbTracker:
    """Weights & Biases, project `groupwise`. Login, mode and entity are its own affair (`wandb login`, WANDB_MODE)."""

    def __init__(self) -> None:
        self._wandb = import_module("wandb")

    def start(self, name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        """Begin a run; its files lie in the run folder. Command line, git remote and code are not sent."""
        quiet = self._wandb.Settings(console="off", disable_git=True, save_code=False, x_disable_meta=True)
        self._run = self._wandb.init(project=PROJECT, name=name, dir=str(folder), config=dict(settings), settings=quiet)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One row of history."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Finish the upload."""
        self._run.finish()


class TrackioTracker:
    """trackio, project `groupwise`: local and without an account; `trackio show --project groupwise` opens it."""

    def __init__(self) -> None:
        self._trackio = import_module("trackio")

    def start(self, name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        """Begin a run in trackio's own folder (TRACKIO_DIR) or wherever TRACKIO_SPACE_ID sends it."""
        self._run = self._trackio.init(project=PROJECT, name=name, config=dict(settings), embed=False)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One row of history."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Write what is still queued."""
        self._run.finish()


TRACKERS: Mapping[str, Callable[[], Tracker]] = {
    "tensorboard": TensorboardTracker,
    "wandb": WandbTracker,
    "trackio": TrackioTracker,
}


class Trackers:
    """All trackers of a run. One that raises is reported once and dropped; the others and the run go on."""

    def __init__(self, trackers: Mapping[str, Tracker], report: Callable[[str], None]) -> None:
        self._live = dict(trackers)
        self._report = report

    def start(self, name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        """Begin the run everywhere. Secrets are taken out of the settings first."""
        plain = redacted(settings)
        self._each("start", lambda tracker: tracker.start(name, folder, plain))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hand the metrics of a step to all."""
        self._each("log", lambda tracker: tracker.log(step, metrics))

    def close(self) -> None:
        """Close all; a second call does nothing."""
        self._each("close", lambda tracker: tracker.close())
        self._live.clear()

    def _each(self, what: str, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._live.items()):
            try:
                act(tracker)
            except Exception as error:
                del self._live[name]
                why = redact_text(f"{what}: {error}")
                self._report(f"tracker {name} failed ({why}) and was dropped; the run goes on without it")


def check_installed(names: Sequence[str]) -> None:
    """Refuse early what `open_trackers` would refuse: a tracker whose package is not there."""
    for name in names:
        _made(name)


def open_trackers(
    names: Sequence[str], *, name: str, folder: Path, settings: Mapping[str, Any], report: Callable[[str], None]
) -> Trackers:
    """Make and start the trackers of `run.trackers`. `report` gets a sentence when one has to be dropped."""
    trackers = Trackers({tracker: _made(tracker) for tracker in names}, report)
    trackers.start(name, folder, settings)
    return trackers


def _made(name: str) -> Tracker:
    try:
        return TRACKERS[name]()
    except ImportError as error:
        raise RecipeError(
            f"run.trackers asks for {name}, which cannot be imported ({error}): "
            f"run `pip install 'groupwise[{name}]'`, or take {name!r} out of run.trackers"
        ) from error
