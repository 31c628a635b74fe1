"""`groupwise doctor`: its lines, its JSON, its exit code, and what it says of packages that do not fit."""

import json
from importlib import metadata

import pytest

from groupwise.cli import doctor as doctor_file
from groupwise.cli import machine_checks, package_checks
from groupwise.cli.doctor import CHECKS, Doctor, examined
from groupwise.cli.findings import Finding
from groupwise.training.machine import memory_free, memory_limit, peak_resident, resident

GB = 1 << 30


def test_a_line_for_each_fact_and_no_secret(groupwise, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_canarycanarycanarycanary")
    ended = groupwise("doctor")
    assert ended.code == 0, ended.err
    about = [line.split()[1] for line in ended.out.splitlines() if line[:1].strip()]
    lines = ["python", "packages", "device", "memory", "disk", "hub", "extra", "engine", "sandbox"]
    assert list(dict.fromkeys(about)) == lines
    assert "canary" not in ended.out + groupwise("doctor", "--json").out


def test_json_says_the_same_and_nothing_else(groupwise):
    ended = groupwise("doctor", "--json")
    told = json.loads(ended.out)
    assert told["ok"] is True
    memory = next(finding for finding in told["findings"] if finding["about"] == "memory")
    assert 0 < memory["values"]["free"] <= memory["values"]["limit"]


def test_an_error_ends_with_exit_code_one(groupwise, monkeypatch):
    monkeypatch.setattr("groupwise.training.machine.memory_free", lambda: GB // 2)
    ended = groupwise("doctor")
    assert ended.code == 1
    assert "error   memory      512 MB of" in ended.out
    assert "cure: end other programs" in ended.out
    assert ended.err == "1 error to mend before a run: memory\n"
    assert json.loads(groupwise("doctor", "--json").out)["ok"] is False


def test_a_check_that_fails_is_a_finding_and_hides_no_other(monkeypatch):
    def broken():
        raise OSError("no such driver")

    monkeypatch.setattr(doctor_file, "CHECKS", (broken, *CHECKS[:1]))
    first, second = examined(Doctor())
    assert (first.about, first.level, first.text) == (
        "broken",
        "error",
        "could not be looked at: OSError: no such driver",
    )
    assert (second.about, second.level) == ("python", "ok")


def test_a_proof_that_was_asked_for_runs_alone(monkeypatch):
    monkeypatch.setitem(doctor_file.PROOFS, "json", lambda value: [Finding("proof", "ok", f"of {value}")])
    assert [finding.text for finding in examined(Doctor(json=True))] == ["of True"]


@pytest.mark.parametrize(
    ("free", "level"), [(8 * GB, "ok"), (2 * GB, "warning"), (GB // 4, "error")], ids=["much", "little", "too little"]
)
def test_disk_by_what_is_free(free, level, monkeypatch):
    monkeypatch.setattr(machine_checks.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free})())
    assert {finding.level for finding in machine_checks.disk()} == {level}


def test_a_gpu_that_torch_cannot_see_is_said(monkeypatch):
    monkeypatch.setattr(machine_checks.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    (finding,) = machine_checks.device()
    assert finding.level == "warning"
    assert "does not see it" in finding.text
    assert "index-url" in finding.cure


def test_packages_that_do_not_fit_each_other(monkeypatch):
    asked = {
        "vllm": ["torch==2.9.0", "transformers>=4", 'numpy<1; extra == "old"', 'numpy<1; python_version < "3"'],
        "groupwise": ["torch>=99", "nosuchpackage>=1", 'wandb>=0.19; extra == "wandb"'],
    }
    monkeypatch.setattr(metadata, "requires", lambda name: asked[name])
    torch = metadata.version("torch")
    assert package_checks.conflicts("vllm") == [f"vllm None needs torch==2.9.0, installed is {torch}"]
    findings = list(package_checks.required())
    assert [(finding.level, finding.cure) for finding in findings] == [
        ("error", 'pip install "torch>=99"'),
        ("error", 'pip install "nosuchpackage>=1"'),
    ]


def test_memory_of_this_process_is_told_in_bytes():
    assert 20e6 < resident() <= peak_resident() < memory_limit()
    assert 0 < memory_free() <= memory_limit()
