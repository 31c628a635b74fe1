"""A run folder from its first file to its last, and everything that can be in its way."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from groupwise.config import load_recipe
from groupwise.errors import FinishedError, RunError
from groupwise.runs.entrance import enter
from groupwise.runs.evaluations import EvaluatedAnswer
from groupwise.runs.folder import RunFolder
from groupwise.types import Completion, Group, Problem, Rollout

CANARY = "Canary0123456789Canary0123456789"


def loaded_recipe(**extra):
    return load_recipe({"seed": 7, "model": {"id": "tiny"}, "task": {"kind": "arithmetic"}, **extra})


def create(root, name="demo", **identity):
    return enter(root, name, loaded_recipe(), "train", identity)


def test_a_run_from_its_first_file_to_its_last(tmp_path):
    completion = Completion((5, 2), (-0.5, 0.0), "stop", "4")
    problem = Problem("p7", "2+2=?", {"answer": "4"})
    with create(tmp_path / "runs", device="cpu") as run:
        assert run.status == "running"
        assert (run.path / "lock").exists()
        assert "seed = 7" in (run.path / "recipe.toml").read_text()
        run.metrics.append(1, {"reward": 0.5})
        run.save_rollouts(1, [Group(problem, (1,), (Rollout(completion, {}, 1.0),))], {"parsed": ["4"]})
        run.save_evaluation(0, "before", {"accuracy": 0.0}, [EvaluatedAnswer(problem, completion, False)])
        run.save_evaluation(0, "again", {"accuracy": 1.0}, [EvaluatedAnswer(problem, completion, True)])
        run.record({"attention": "plain"})
        run.log("first\nsecond \x1b[31mred")

    read = RunFolder.open(tmp_path / "runs" / "demo")
    assert read.status == "finished"
    assert not (read.path / "lock").exists()
    assert read.metrics.series("reward") == [(1, 0.5)]
    assert read.rollout_steps() == [1]
    assert read.rollouts(1)[0].extra == {"parsed": "4"}
    before, again = read.evaluations()
    assert (before["step"], before["label"], before["accuracy"]) == (0, "before", 0.0)
    assert [answer.correct for answer in read.answers(before) + read.answers(again)] == [False, True]
    log = (read.path / "log").read_text()
    assert log.endswith("  first\n    second red\n")
    facts = read.identity
    assert (facts["seed"], facts["device"], facts["attention"]) == (7, "cpu", "plain")
    assert facts["trust_remote_code"] is False
    assert facts["versions"]["pyarrow"]
    assert facts["started"] <= facts["ended"]
    assert sorted(entry.name for entry in read.path.iterdir()) == [
        "evals",
        "evals.jsonl",
        "log",
        "metrics.jsonl",
        "recipe.toml",
        "rollouts",
        "run.json",
    ]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), "interrupted", None),
        (SystemExit(75), "interrupted", None),
        (ValueError(f"bad hf_{CANARY}"), "failed", "ValueError: bad [redacted]"),
    ],
)
def test_how_it_ended_is_written(tmp_path, error, status, said):
    with pytest.raises(type(error)), create(tmp_path) as run:
        raise error
    assert run.status == status
    assert run.identity.get("error") == said
    assert not (run.path / "lock").exists()


def test_the_error_that_matters_is_not_hidden_by_a_folder_that_is_gone(tmp_path):
    with pytest.raises(ValueError, match="the reason"), create(tmp_path) as run:
        for entry in run.path.iterdir():
            entry.unlink()
        run.path.rmdir()
        raise ValueError("the reason")


def test_a_run_that_is_finished_is_left_alone(tmp_path):
    with create(tmp_path):
        pass
    before = {path: path.read_bytes() for path in (tmp_path / "demo").iterdir()}
    with pytest.raises(FinishedError, match=r"demo is finished.*train\.steps.*run\.name=.*delete") as caught:
        create(tmp_path)
    assert "process" not in str(caught.value)
    assert {path: path.read_bytes() for path in (tmp_path / "demo").iterdir()} == before


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.tex").write_text("")
    with pytest.raises(RunError, match=r"demo is not empty \(it has thesis\.tex\)"):
        create(tmp_path)
    assert [entry.name for entry in (tmp_path / "demo").iterdir()] == ["thesis.tex"]


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "demo").mkdir()
    assert create(tmp_path).status == "running"


def test_a_second_run_is_told_who_is_writing(tmp_path):
    create(tmp_path)
    with pytest.raises(RunError, match=rf"being written by process {os.getpid()} on .* running now"):
        create(tmp_path)


def test_the_run_of_a_killed_process_is_taken_up(tmp_path):
    script = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from test_run_folder import create; create(Path(sys.argv[2])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    here = str(Path(__file__).parent)
    killed = subprocess.run([sys.executable, "-c", script, here, str(tmp_path)], capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    run = RunFolder.open(tmp_path / "demo")
    identity = run.identity
    assert identity["status"] == "running"
    assert run.status == "interrupted"
    again = create(tmp_path)
    assert again.status == "running"
    assert json.loads((run.path / "lock").read_text())["pid"] == os.getpid()
    assert again.identity["id"] == identity["id"]
    assert [attempt["status_before"] for attempt in again.identity["attempts"]] == ["running"]


def test_the_lock_of_a_later_process_with_the_same_number_is_stale(tmp_path):
    run = create(tmp_path)
    lock = json.loads((run.path / "lock").read_text())
    if lock["process_start"] is None:
        pytest.skip("this system does not tell when a process began")
    (run.path / "lock").write_text(json.dumps({**lock, "process_start": "1"}))
    assert run.status == "interrupted"


def test_a_lock_from_another_host_cannot_be_judged(tmp_path):
    run = create(tmp_path)
    lock = {"pid": 1, "host": "not-" + socket.gethostname(), "since": "2026-01-01", "process_start": "1"}
    (run.path / "lock").unlink()
    (run.path / "lock").write_text(json.dumps(lock))
    assert run.status == "running"
    with pytest.raises(RunError, match=r"in use by process 1 on not-.* no longer running, delete .*lock"):
        create(tmp_path)
    run.close("finished")
    assert (run.path / "lock").exists(), "the lock of another process must stay"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": "x"}', '{"pid": -1}', "\x00"])
def test_a_lock_that_is_not_ours_is_explained(tmp_path, content):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "lock").write_text(content)
    with pytest.raises(RunError, match=r"names no process.* delete that file"):
        create(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "", ".", "..", ".hidden", "nul\x00", "x" * 300, "名", "CON", "nul.txt", "a b", "a\n", "end.", "-x"],
)
def test_a_name_that_is_no_folder_name_is_refused(tmp_path, name):
    with pytest.raises(RunError, match=r"run\.name = .* cannot name a folder"):
        create(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("root", ["file", "file/deeper", "nul\x00", "lone\ud800", "x" * 300])
def test_a_root_that_is_no_folder_is_refused(tmp_path, root):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"run\.folder"):
        create(tmp_path / root)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_root_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RunError, match=r"Permission denied; choose a folder that you may write"):
            create(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_a_read_only_system_folder_is_refused():
    if not Path("/proc/self").exists():
        pytest.skip("needs a folder that not even root can write")
    with pytest.raises(RunError, match=r"cannot write /proc/runs"):
        create(Path("/proc/runs"))


def test_no_secret_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "odd-" + CANARY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY + "/aws")
    monkeypatch.setattr(sys, "argv", ["groupwise", "train", "--token", CANARY, f"model.id=https://u:{CANARY}@h/m"])
    settings = {"api_key": CANARY, "url": f"https://me:{CANARY}@host", "eos_token": "<|im_end|>"}
    loaded = loaded_recipe(rewards=[{"function": "reward.py:judge", "settings": settings}])
    run = enter(tmp_path, "demo", loaded, "train", {"hub": {"token": CANARY}, "note": f"sk-{CANARY}"})
    with pytest.raises(ValueError, match="odd"), run:
        run.log(f"using odd-{CANARY} and {CANARY}/aws")
        raise ValueError(f"odd-{CANARY}")
    kept = run.recipe().recipe.rewards[0].settings
    assert kept == {"api_key": "[redacted]", "url": "https://me:[redacted]@host", "eos_token": "<|im_end|>"}
    for path in (tmp_path / "demo").rglob("*"):
        assert CANARY.encode() not in path.read_bytes(), path
    assert run.identity["command"] == [
        "groupwise",
        "train",
        "--token",
        "[redacted]",
        "model.id=https://u:[redacted]@h/m",
    ]


def test_the_recipe_is_read_back_with_the_folder_it_started_from(tmp_path):
    (tmp_path / "recipes").mkdir()
    recipe = tmp_path / "recipes" / "recipe.toml"
    recipe.write_text('[model]\nid = "tiny"\n[task]\nkind = "arithmetic"\n[[rewards]]\nfunction = "reward.py:mine"\n')
    loaded = load_recipe(recipe, ["seed=11", "optimizer.lr=2e-5"])
    run = enter(tmp_path / "runs", "demo", loaded, "train", {})
    again = RunFolder.open(run.path).recipe()
    assert again.recipe == loaded.recipe
    assert again.folder == loaded.folder.absolute()
    assert "command line" in (run.path / "recipe.toml").read_text()


def test_what_is_not_a_run_gets_a_hint(tmp_path):
    run = create(tmp_path / "runs", "gsm8k-small")
    run.model_path.mkdir()
    with pytest.raises(RunError, match=r"there is no run at .*gsm8k-smal; did you mean .*gsm8k-small\?"):
        RunFolder.open(tmp_path / "runs" / "gsm8k-smal")
    with pytest.raises(RunError, match=r"no run at .*run/gsm8k-small; did you mean .*runs/gsm8k-small\?"):
        RunFolder.open(tmp_path / "run" / "gsm8k-small")
    with pytest.raises(RunError, match=r"holds 1 of them: name one, such as .*gsm8k-small"):
        RunFolder.open(tmp_path / "runs")
    with pytest.raises(RunError, match=r"is a part of a run: name the run itself, .*gsm8k-small"):
        RunFolder.open(run.model_path)
    with pytest.raises(RunError, match=r"is a file"):
        RunFolder.open(run.path / "run.json")
    with pytest.raises(RunError, match=r"is not a run: it has no run\.json"):
        RunFolder.open(tmp_path)


def test_a_damaged_or_newer_record_is_an_error(tmp_path):
    run = create(tmp_path)
    (run.path / "run.json").write_text("{half")
    with pytest.raises(RunError, match=r"cannot read .*run\.json"):
        RunFolder.open(run.path)
    (run.path / "run.json").write_text('{"format": 99}')
    with pytest.raises(RunError, match="format 99, not 1"):
        RunFolder.open(run.path)


def test_a_run_without_a_model_says_so(tmp_path):
    run = create(tmp_path)
    with pytest.raises(RunError, match=r"no trained model \(its status is running\)"):
        run.trained_model()
    run.model_path.mkdir()
    (run.model_path / "config.json").write_text("{}")
    assert run.trained_model() == run.path / "model"


def test_nothing_in_runs_needs_torch():
    script = (
        "import sys, importlib, pkgutil, groupwise.runs as room\n"
        "for found in pkgutil.iter_modules(room.__path__): importlib.import_module('groupwise.runs.' + found.name)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
