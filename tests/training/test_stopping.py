"""A run that is asked to stop: it saves, says how to go on, and leaves nothing behind; a second one is kept out."""

import asyncio
import os
import signal
import time
from contextlib import suppress

import pytest

from crash import child
from groupwise.errors import RunError
from groupwise.runs.folder import RunFolder
from groupwise.training.stop import Stop
from soak import Soak


@pytest.fixture(scope="module")
def soak(tmp_path_factory):
    return Soak(tmp_path_factory.mktemp("stop"), steps=20)  # a busy machine may be late with a signal


def until_steps(soak, name, steps):
    """Wait for so many steps; the run so far."""
    rows = soak.runs / name / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (rows.exists() and rows.read_bytes().count(b"\n") >= steps):
        assert time.monotonic() < deadline, "it does not get on"
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_asked_to_stop_it_saves_and_the_same_command_goes_on(soak, number):
    name = number.name.lower()
    pid = soak.start(name)
    until_steps(soak, name, 3)
    start = time.monotonic()
    os.kill(pid, number)
    assert soak.wait(pid) == 75
    assert time.monotonic() - start < 5, "a step of this model takes a tenth of a second"
    run = RunFolder.open(soak.runs / name)
    assert run.status == "interrupted"
    assert not (run.path / "lock").exists()
    done = run.checkpoints.newest().checkpoint.step
    assert done == len(run.metrics.read()) >= 3, "no step that was made is lost"
    assert run.trained_model() == run.checkpoints.newest().checkpoint.model
    assert child(lambda: soak.train(name)) == 0
    assert soak.difference(name) == ""


def test_a_second_one_leaves_at_once_and_harms_nothing(soak):
    pid = soak.start("twice")
    until_steps(soak, "twice", 2)
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGINT)
    time.sleep(0.01)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)
    assert soak.wait(pid) in (128 + signal.SIGINT, 75), "75 if the first was carried out before the second came"
    assert child(lambda: soak.train("twice")) == 0
    assert soak.difference("twice") == ""


def test_asked_at_random_moments_it_ends_as_if_it_had_not_been(soak):
    runs = soak.ask_at_random(times=3, seed=1)
    assert [soak.difference(name) for name in runs] == [""] * len(runs)


def test_who_is_asked_before_the_first_step_does_nothing_more():
    """Where the preflight took so long that Ctrl-C was pressed in it."""
    stop, said = Stop(), []
    stop.asked = "SIGINT"

    async def evaluates():
        with stop.dropping(lambda: True, said.append):
            await asyncio.sleep(60)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(evaluates())
    assert said == ["SIGINT: the step at hand is dropped"]


def test_a_second_process_is_kept_out_and_told_the_ways_out(soak, tmp_path):
    pid = soak.start("both")
    until_steps(soak, "both", 1)
    told = tmp_path / "told"

    def second():
        from groupwise import Trainer
        from groupwise.config import load_recipe

        os.chdir(soak.folder)
        try:
            Trainer.from_recipe(load_recipe("recipe.toml", ["run.name=both"])).train()
        except RunError as error:
            told.write_text(str(error))
        return 0

    os.kill(pid, signal.SIGSTOP)  # or it would have ended before the second gets there
    assert child(second) == 0
    os.kill(pid, signal.SIGCONT)
    assert f"is being written by process {pid} on " in told.read_text()
    assert "wait for it or stop it" in told.read_text()
    assert "run.name=..." in told.read_text()
    assert soak.wait(pid) == 0, "and the first was not disturbed"
    assert soak.difference("both") == ""


def test_a_finished_run_is_no_mistake(soak):
    assert child(lambda: soak.train("undisturbed")) == 0
