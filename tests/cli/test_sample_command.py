"""`groupwise sample`: the same prompts as in training, from every door, and nothing of a model's text obeyed."""

import io
import json
import os
import select
import shutil
import subprocess
import sys

import pytest
from rich.console import Console

from groupwise.cli.sample import Shown
from groupwise.cli.speaker import Speaker
from groupwise.cli.subject import subject
from groupwise.engines.embedded import EmbeddedEngine
from groupwise.types import Completion

SHORT = ["--max-new-tokens", "6"]


def rows(ended):
    assert ended.code == 0, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


def test_a_prompt_and_its_completions(trained, groupwise):
    ended = groupwise("sample", trained["full"], "--prompt", "1+2=?", "-n", "3", *SHORT)
    assert ended.code == 0, ended.err
    assert [line for line in ended.out.splitlines() if line.startswith("[")] == ["[1/3]", "[2/3]", "[3/3]"]


def test_json_has_all_of_a_completion(trained, groupwise):
    given = ["--prompt", "1+2=?", "-n", "2", "--json", *SHORT]
    first, second = rows(groupwise("sample", trained["full"], *given))
    assert set(first) == {"prompt", "completion", "finish_reason", "tokens", "row", "branch"}
    assert (first["prompt"], first["row"], first["branch"], second["branch"]) == ("1+2=?", 0, 0, 1)
    assert first["tokens"] <= 6
    assert first["finish_reason"] in ("stop", "length")


def test_the_seed_decides_and_temperature_0_is_greedy(trained, groupwise):
    def texts(*options):
        ended = groupwise("sample", trained["full"], "--prompt", "1+2=?", "-n", "2", "--json", *SHORT, *options)
        return [row["completion"] for row in rows(ended)]

    assert texts("--seed", "1") == texts("--seed", "1")
    assert texts("--seed", "1") != texts("--seed", "2")
    greedy = texts("--temperature", "0")
    assert greedy[0] == greedy[1]
    assert greedy == texts("--temperature", "0", "--seed", "7")


def test_a_run_is_asked_as_in_training(recipe, groupwise, monkeypatch):
    """The same ids reach the engine: the system prompt of the recipe stands in front, unless another one is given."""
    asked = []
    sample = EmbeddedEngine.sample

    async def noted(engine, prompt_ids, n, sampling, seeds):
        asked.append((engine._policy.tokenizer.decode(list(prompt_ids)), sampling))
        return await sample(engine, prompt_ids, n, sampling, seeds)

    settings = ["sampling.temperature=0.7", "sampling.max_new_tokens=5", "evaluation.before=false"]
    assert groupwise("train", "recipe.toml", "task.system_prompt=Add.", "train.steps=1", *settings).code == 0
    monkeypatch.setattr(EmbeddedEngine, "sample", noted)
    assert groupwise("sample", "runs/toy", "--prompt", "1+2=?").code == 0
    assert groupwise("sample", "runs/toy", "--prompt", "1+2=?", "--system", "Sum.", "--temperature", "1").code == 0
    (text, sampling), (other, changed) = asked
    assert (text, other) == ("Add.\n1+2=?", "Sum.\n1+2=?")
    assert (sampling.temperature, sampling.max_new_tokens) == (0.7, 5)
    assert (changed.temperature, changed.max_new_tokens) == (1.0, 5)


def test_the_words_of_a_task_are_known_without_its_data(small):
    about = subject(str(small), ["task={kind='gsm8k', path='nowhere/at-all', system_prompt='default'}"])
    assert "<reasoning>" in Speaker.of(about.loaded, seed=0).system_prompt


def test_files_of_prompts(recipe, groupwise, small):
    folder = recipe.parent
    (folder / "prompts.txt").write_text("1+2=?\n\n3+4=?\n")
    (folder / "prompts.jsonl").write_text(
        '{"prompt": "1+2=?", "answer": "3"}\n{"prompt": [{"role": "user", "content": "3+4=?"}]}\n'
    )
    for file in ("prompts.txt", "prompts.jsonl"):
        answered = rows(groupwise("sample", small, "--file", file, "-n", "2", "--json", *SHORT))
        assert [(row["row"], row["branch"]) for row in answered] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    shown = groupwise("sample", small, "--file", "prompts.jsonl", *SHORT).out
    assert [line for line in shown.splitlines() if line.startswith("> ")] == ["> 1+2=?", "> 3+4=?"]


def test_many_prompts_come_in_order(recipe, groupwise, small):
    (recipe.parent / "many.txt").write_text("".join(f"{number}+1=?\n" for number in range(20)))
    few_rows = ["engine.max_rows=6", "--n", "2"]
    answered = rows(groupwise("sample", small, *few_rows, "--file", "many.txt", "--json", *SHORT))
    assert [row["prompt"] for row in answered[::2]] == [f"{number}+1=?" for number in range(20)]
    assert [row["row"] for row in answered] == [number // 2 for number in range(40)]
    # A completion depends on its prompt and seed, not on how many are drawn at once.
    together = rows(groupwise("sample", small, "--n", "2", "--file", "many.txt", "--json", *SHORT))
    assert [row["completion"] for row in answered] == [row["completion"] for row in together]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--file", "nowhere.txt"], "--file nowhere.txt cannot be read"),
        (["--file", "nowhere.jsonl"], "nowhere.jsonl cannot be read"),
        (["--file", "empty.txt"], "has no prompt in it"),
        (["--file", "broken.jsonl"], "broken.jsonl, line 1 is not valid JSON"),
        (["--file", "empty.txt", "--prompt", "x"], "give one of them"),
        (["--prompt", "x" * 300], "a prompt of 300 tokens cannot be completed"),
        (["--prompt", ""], "an empty prompt cannot be completed"),
        (["--prompt", "x", "--style", "chat"], "no chat template"),
        (["--prompt", "x", "sampling.top_k=-1"], "sampling.top_k: got -1"),
        (["347+589=?"], "'347+589=?' is no setting, such as model.dtype=bf16. A prompt is given as --prompt"),
        (["hello"], "'hello' is no setting"),
    ],
)
def test_what_cannot_be_sampled(recipe, groupwise, small, arguments, said):
    (recipe.parent / "empty.txt").write_text("\n")
    (recipe.parent / "broken.jsonl").write_text("{\n")
    ended = groupwise("sample", small, *arguments)
    assert (ended.code, ended.out) == (1, "")
    assert said in ended.err


def test_a_run_without_a_model(recipe, groupwise):
    assert groupwise("train", "recipe.toml", 'rewards=[{function = "correctness", weight = 1e300}]').code == 0
    (recipe.parent / "runs/toy/model/model.safetensors").rename(recipe.parent / "weights")
    shutil.rmtree(recipe.parent / "runs/toy/checkpoints")
    for file in (recipe.parent / "runs/toy/model").iterdir():
        file.unlink()
    ended = groupwise("sample", "runs/toy", "--prompt", "x")
    assert ended.code == 1
    assert "runs/toy has no trained model" in ended.err


def shown_as(console, completion, *, as_json=False):
    notes = Console(file=io.StringIO())
    Shown(console, notes, as_json, headed=False).answer("p", [completion], 0)
    return console.file.getvalue()


def test_a_terminal_gets_no_escape_sequences_and_a_file_all_of_the_text():
    hostile = Completion((1,), (0.0,), "stop", "a\x1b[2Jb\x9b1mc\u202ed\r\ne")
    on_a_terminal = shown_as(Console(file=io.StringIO(), force_terminal=True), hostile)
    assert on_a_terminal == "abcd\ne\n"
    assert "\x9b" not in shown_as(Console(file=io.StringIO(), force_terminal=True), hostile, as_json=True)
    assert shown_as(Console(file=io.StringIO()), hostile) == hostile.text + "\n"
    assert json.loads(shown_as(Console(file=io.StringIO()), hostile, as_json=True))["completion"] == hostile.text


def test_what_was_cut_off_is_noted_beside_the_output():
    console, notes = Console(file=io.StringIO()), Console(file=io.StringIO())
    cut = Completion((1, 2), (0.0, 0.0), "length", "12")
    Shown(console, notes, as_json=False, headed=False).answer("p", [cut], 0)
    assert (console.file.getvalue(), notes.file.getvalue()) == ("12\n", "(cut off after 2 tokens)\n")


COMMAND = [sys.executable, "-m", "groupwise", "sample"]


def test_lines_of_a_pipe(small):
    given = {"input": "1+2=?\n\n3+4=?\n", "capture_output": True, "text": True, "timeout": 120}
    ended = subprocess.run([*COMMAND, str(small), "--json", *SHORT], **given)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [json.loads(line)["prompt"] for line in ended.stdout.splitlines()] == ["1+2=?", "3+4=?"]


def test_somebody_who_types(small):
    """On a terminal: it asks, answers, a prompt asked again is answered anew, and Ctrl-D leaves."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "dumb", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen(
        [*COMMAND, str(small), *SHORT], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)

    def until_it_asks():
        """What it wrote; a prompt that it does not wait for yet would be lost."""
        shown = b""
        while not shown.endswith(b"> "):
            assert select.select([ours], [], [], 120)[0], shown
            shown += os.read(ours, 65536)
        return shown

    assert b"Ctrl-D leaves" in until_it_asks()
    answers = []
    for _ in range(2):
        os.write(ours, b"1+2=?\n")
        answers.append(until_it_asks().partition(b"1+2=?")[2])
    assert all(b"(cut off after 6 tokens)" in answer for answer in answers)
    assert answers[0] != answers[1]
    os.write(ours, b"\x04")
    assert process.wait(timeout=60) == 0
    os.close(ours)
