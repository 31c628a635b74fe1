import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import gpu
from gpu import QWEN, bytes_of_a_step
from gpu_tables import devices
from results import of_this_machine
from workloads import Shape

ROOT = Path(__file__).parents[2]


def test_bytes_that_a_decoding_step_reads():
    shape = Shape(hidden=4, layers=1, heads=2, kv_heads=1, intermediate=8, vocabulary=10)
    # 144 + 40 weights; 4 numbers of cache a token; 2 prompts of 3 tokens, 4 rows of 5 tokens.
    assert bytes_of_a_step(shape, rows=4, group=2, prompt=3, generated=5) == 2 * (184 + 4 * (6 + 20))


def test_the_shapes_are_qwens():
    large = bytes_of_a_step(QWEN["Qwen2.5-1.5B"], rows=0, group=1, prompt=0, generated=0) / 2
    small = bytes_of_a_step(QWEN["Qwen2.5-0.5B"], rows=0, group=1, prompt=0, generated=0) / 2
    assert (round(large / 1e9, 2), round(small / 1e9, 2)) == (1.54, 0.49)


def test_it_runs_on_a_toy(tmp_path):
    command = [sys.executable, "bench/gpu.py", "--device", "cpu", "--tiny", "--out", tmp_path]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    entry = of_this_machine(tmp_path).part("gpu")["cpu"]
    tiny = entry["shapes"]["tiny"]
    assert [row["rows"] for row in tiny["decode"]] == [8, 16]
    assert all(row["rate"] > 0 for row in tiny["decode"])
    assert tiny["update"]["rate"] > 0 and tiny["step"][0]["seconds"] > 0
    assert "| tiny | 8 |" in done.stdout


def test_what_there_is_no_time_for_is_broken_off_and_named(monkeypatch):
    """Three seconds, and a measurement that takes an hour."""
    began = time.monotonic()
    monkeypatch.setattr(gpu, "decode", lambda *_: time.sleep(3600))
    monkeypatch.setattr(gpu.Clock, "left", lambda self: 3600)
    entry = gpu.measure(gpu.TINY, torch.device("cpu"), minutes=0.05)
    assert time.monotonic() - began < 60
    assert entry["trl"] == "no time left"
    assert entry["shapes"]["tiny"]["decode"] == []
    assert "update" not in entry["shapes"]["tiny"]
    stamp = dict.fromkeys(("date", "commit", "machine", "versions"), "")
    assert "| tiny | not measured |" in devices({"cpu": {**entry, "command": "", "stamp": stamp}})


def test_an_end_that_somebody_swallowed_comes_again(monkeypatch):
    own = gpu.signal.setitimer
    monkeypatch.setattr(gpu.signal, "setitimer", lambda which, first, again=0.0: own(which, first, min(again, 0.05)))
    clock = gpu.Clock(torch.device("cpu"))
    try:
        clock.begin(minutes=0.001)
        with contextlib.suppress(Exception):  # as a decoder that is tried out
            time.sleep(30)
        with pytest.raises(gpu.OutOfTimeError):
            time.sleep(30)
    finally:
        clock.stop()


@pytest.mark.parametrize("options", [["--device", "cpu"], ["--device", "cuda", "--tiny"]])
def test_without_a_gpu_it_says_so(options, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options, "--out", str(tmp_path)])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device"):
        gpu.main()
    assert not list(tmp_path.iterdir())
