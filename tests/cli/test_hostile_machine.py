"""Names that no disk takes, words that are no text, counts without end, a full disk: one message, exit code 1."""

import subprocess
import sys
from pathlib import Path

import pytest

LONG = "a" * 300


def told(ended, *words):
    assert ended.code == 1, ended
    assert "Traceback" not in ended.err and "mistake of groupwise" not in ended.err
    for word in words:
        assert word in ended.err, ended.err


@pytest.mark.parametrize(
    "words",
    [
        ("eval", LONG),
        ("replay", LONG, "--step", 1),
        ("sample", LONG),
        ("export", LONG, "--out", "there"),
        ("init", LONG),
        ("reward", "test", f"{LONG}.py"),
        ("import", "trl", f"{LONG}.yaml", "--out", "there.toml"),
        ("train", f"{LONG}.toml"),
        ("train", "recipe.toml", f"model.id={LONG}/{LONG}"),
        ("train", "recipe.toml", f"run.folder={LONG}"),
    ],
    ids=lambda words: " ".join(str(word) for word in words).replace(LONG, "LONG"),
)
def test_a_name_that_is_too_long(groupwise, recipe, words):
    told(groupwise(*words), "ile name too long")


@pytest.mark.parametrize(
    "words",
    [
        ("train", "\udcff.toml"),
        ("train", "recipe.toml", "run.folder=\udcff"),
        ("eval", "\udcff"),
        ("init", "\udcff"),
        ("sample", "x", "--prompt", "\udcff"),
    ],
)
def test_a_word_that_is_no_text(groupwise, recipe, words):
    told(groupwise(*words), "is no UTF-8", "\\udcff")


@pytest.mark.parametrize(
    "setting",
    [
        "train.prompts_per_step",
        "train.group_size",
        "sampling.max_new_tokens",
        "learner.passes",
        "sft.rows_per_step",
        "evaluation.samples",
        "task.train_size",
    ],
)
def test_a_count_without_end(groupwise, recipe, setting):
    told(groupwise("train", recipe, f"{setting}={10**17}"), setting, "at most")


def test_an_option_without_end(groupwise, recipe):
    told(groupwise("sample", "runs/x", "-n", 10**17))
    told(groupwise("doctor", "--graders", 10**17))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk at hand")
def test_standard_output_on_a_full_disk():
    words = [sys.executable, "-m", "groupwise", "algorithms"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.strip() == "standard output: No space left on device. Free some space, or choose another folder"
