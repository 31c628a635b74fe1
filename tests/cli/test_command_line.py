"""The command line as a whole: what starts without torch, how commands end, and what is kept off the terminal."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
import warnings

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from groupwise import __version__
from groupwise.cli import main as main_module
from groupwise.cli.main import VERBS, main
from groupwise.errors import ModelError
from groupwise.models.small import character_tokenizer
from groupwise.runs.folder import RunFolder


def in_a_process(code, *arguments, **settings):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, **settings
    )


LIGHT = (
    "import sys; from groupwise.cli.main import main; code = main(sys.argv[1:])\n"
    "heavy = {'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules)\n"
    "assert not heavy, heavy\n"
    "sys.exit(code)"
)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "export"),
        ([], 0, "export"),
        (["train", "--help"], 0, "optimizer.lr=2e-5"),
        (["version"], 0, __version__),
        (["train", "nowhere.toml"], 1, "there is no such file"),
        (["train", "wrong.toml", "train.step=3"], 1, "Did you mean train.steps?"),
        (["train", "wrong.toml", "--train.steps=3"], 1, "A setting is written without dashes: train.steps=3"),
        (["reward", "--help"], 0, "\n  groupwise reward test correctness --data answers.jsonl\n"),
        (["eval", "wrong.toml", "train.step=3"], 1, "Did you mean train.steps?"),
        (["init", "new", "--task", "dataset"], 0, "next: groupwise train new/recipe.toml"),
    ],
)
def test_what_needs_no_torch_starts_without_it(tmp_path, arguments, code, said):
    (tmp_path / "wrong.toml").write_text('[model]\nid = "x"\n[task]\nkind = "arithmetic"\n')
    ended = in_a_process(LIGHT, *arguments, cwd=tmp_path)
    assert ended.returncode == code, ended
    assert said in ended.stdout + ended.stderr
    assert (ended.stderr == "") == (code == 0)


def test_it_is_a_module_too():
    ended = subprocess.run([sys.executable, "-m", "groupwise", "version"], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"groupwise {__version__}\n")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb, groupwise):
    ended = groupwise(verb, "--help")
    assert ended.code == 0
    assert f"groupwise {verb}" in ended.out
    assert ended.err == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian", "recipe.toml"], "Did you mean 'train'?"),
        (["train", "recipe.toml", "--fast"], "No such option"),
        (["train"], "RECIPE"),
        (["sample", "x", "--n", "0"], "'--n'"),
        (["sample", "x", "--style", "prose"], "prose"),
        (["init", "--task", "chess"], "chess"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_the_users_mistake(groupwise, arguments, said):
    ended = groupwise(*arguments)
    assert ended.code == 1
    assert said in ended.err
    assert ended.err.startswith("Usage: groupwise ")
    assert "Traceback" not in ended.err


def failing(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setitem(main_module.VERBS, "version", (fail, ""))


def test_a_mistake_of_ours_keeps_its_traceback(groupwise, monkeypatch):
    failing(monkeypatch, ZeroDivisionError("ours"))
    ended = groupwise("version")
    assert ended.code == 2
    assert "Traceback" in ended.err
    assert "ZeroDivisionError: ours" in ended.err
    assert ended.err.splitlines()[-1].endswith("Please report it with the lines above.")


def test_a_mistake_of_the_user_is_its_message_and_nothing_else(groupwise, monkeypatch):
    failing(monkeypatch, ModelError("what \x1b[2Jand why\nhow to mend it"))
    ended = groupwise("version")
    assert (ended.code, ended.out, ended.err) == (1, "", "what and why\nhow to mend it\n")


def test_control_c(groupwise, monkeypatch):
    failing(monkeypatch, KeyboardInterrupt())
    assert groupwise("version").code == 130


def test_a_gpu_that_is_full(groupwise, monkeypatch):
    failing(monkeypatch, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"))
    ended = groupwise("version")
    assert ended.code == 1
    assert "Tried to allocate 2.00 GiB." in ended.err
    assert "learner.token_budget" in ended.err


def test_a_reader_that_has_enough_is_no_error():
    printing = "from groupwise.cli.endings import ended; import sys; sys.exit(ended(lambda: print('x' * 100000)))"
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [sys.executable, "-c", printing], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_control_c_keeps_the_model_and_says_where(recipe):
    process = subprocess.Popen(
        [sys.executable, "-m", "groupwise", "train", "recipe.toml", "train.steps=100000", "evaluation.problems=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = recipe.parent / "runs/toy/metrics.jsonl"
    deadline = time.monotonic() + 90
    while not metrics.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert re.fullmatch(r"SIGINT: runs/toy is stopped; the same command goes on from step \d+\n", err), err
    run = RunFolder.open(recipe.parent / "runs/toy")
    assert run.status == "interrupted"
    assert (run.trained_model() / "model.safetensors").is_file()


def test_libraries_are_quiet_and_our_warnings_are_one_line(recipe, groupwise, tmp_path, monkeypatch):
    tokenizer = character_tokenizer()
    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=len(tokenizer), hidden_size=16, state_size=4, num_hidden_layers=1, eos_token_id=1, pad_token_id=0
    )
    MambaForCausalLM(config).save_pretrained(tmp_path / "mamba")
    tokenizer.save_pretrained(str(tmp_path / "mamba"))
    ended = groupwise("train", "recipe.toml", "model.id=mamba", "train.steps=1")
    assert ended.code == 0, ended.err
    (line,) = ended.err.splitlines()
    assert line.startswith("warning: MambaForCausalLM runs as plain padded batches: ")
    assert "plain batches: " in ended.out


def test_what_is_silenced(groupwise, capsys):
    groupwise("version")
    logging.getLogger("transformers.anything").warning("chatter")
    logging.getLogger("groupwise.models.load").info("detail")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        main(["version"])
        warnings.warn_explicit("old", UserWarning, "lora.py", 1, module="peft.tuners.lora")
        warnings.warn_explicit("mine", UserWarning, "reward.py", 1, module="groupwise_reward_0123")
    assert [str(each.message) for each in caught] == ["mine"]
    assert capsys.readouterr().err == ""
