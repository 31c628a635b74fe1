"""No pickle on any way in, no code of strangers, no secret in what is written."""

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch
from toy_runs import small_letters, trainer_of

from groupwise.config.sections import ModelSection
from groupwise.errors import GroupwiseError, ModelError, RecipeError, RunError
from groupwise.models.load import load_model
from groupwise.models.pinned import pin_of
from groupwise.models.small import write_small_model
from groupwise.rewards import Unknown
from groupwise.runs.folder import RunFolder

SRC = Path(__file__).parents[2] / "src" / "groupwise"
PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def pickling(tree):
    """Imports and calls by which a file that is read could run code."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in PICKLERS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLERS:
            found.append(node.module)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name in ("torch.load", "yaml.load", "yaml.unsafe_load", "pd.read_pickle"):
                found.append(name)
            if keywords.get("allow_pickle") == "True" or keywords.get("weights_only") == "False":
                found.append(f"{name}({keywords})")
            if name.endswith("ForCausalLM.from_pretrained") and keywords.get("use_safetensors") != "True":
                found.append(f"{name} without use_safetensors")
    return found


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda path: str(path.relative_to(SRC)))
def test_nothing_reads_a_pickle(path):
    # The trainer's orders to its own sandbox go as marshal, which needs no import there; what comes back is JSON.
    allowed = {"marshal"} if path.is_relative_to(SRC / "rewards" / "code") else set()
    assert set(pickling(ast.parse(path.read_text()))) <= allowed


def test_nothing_of_a_program_is_read_as_marshal():
    """Only the inside of the sandbox reads it, from the trainer."""
    readers = {path.name for path in SRC.rglob("*.py") if "marshal.load" in path.read_text()}
    assert readers == {"jobs.py", "serve.py"}


def test_the_check_finds_what_it_looks_for():
    for code in (
        "import pickle",
        "from dill import loads",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "AutoModelForCausalLM.from_pretrained(folder)",
    ):
        assert len(pickling(ast.parse(code))) == 1, code


def test_weights_as_a_pickle_are_refused_and_never_opened(tmp_path):
    write_small_model(tmp_path / "model", hidden=32, layers=1, heads=2)
    (tmp_path / "model" / "model.safetensors").unlink()

    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"x": Trap()}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_model(ModelSection(id=str(tmp_path / "model")))
    assert not (tmp_path / "sprung").exists()


def test_an_adapter_as_a_pickle_is_refused(tmp_path):
    write_small_model(tmp_path / "base", hidden=32, layers=1, heads=2)
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "base")}))
    torch.save({}, folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_model(ModelSection(id=str(folder)))


def test_a_folder_has_no_revision(tmp_path):
    write_small_model(tmp_path / "model", hidden=32, layers=1, heads=2)
    with pytest.raises(RecipeError, match=r"model\.revision: .* is a folder"):
        _ = trainer_of(tmp_path, model=str(tmp_path / "model"), **{"model.revision": "main"}).parts


def test_code_that_lies_in_a_model_folder_is_pinned_by_its_contents(tmp_path):
    folder = tmp_path / "model"
    write_small_model(folder, hidden=32, layers=1, heads=2)
    (folder / "modeling.py").write_text("x = 1\n")
    settings = {"model.trust_remote_code": True}
    with pytest.raises(RecipeError, match=pin_of(folder)):
        _ = trainer_of(tmp_path, model=str(folder), **settings, **{"model.revision": "main"}).parts
    settings["model.revision"] = pin_of(folder)
    assert trainer_of(tmp_path, model=str(folder), **settings).parts.policy is not None
    (folder / "modeling.py").write_text("x = 2\n")
    with pytest.raises(RecipeError, match="was changed"):
        _ = trainer_of(tmp_path, model=str(folder), **settings).parts


def test_trust_and_its_pin_are_in_the_record(tmp_path):
    run = trainer_of(tmp_path).train()
    assert run.identity["trust_remote_code"] is False
    assert run.identity["model_revision"] is None


@pytest.mark.parametrize("name", ["../x", "a/b", "a\0b", "x" * 300, "CON", ".hidden", "naïve", ""])
def test_names_that_escape_are_refused(tmp_path, name):
    with pytest.raises(GroupwiseError, match=r"run\.name"):
        trainer_of(tmp_path, **{"run.name": name}).train()
    assert not list(tmp_path.parent.glob("x"))


CANARIES = {
    "HF_TOKEN": "hf_canarycanarycanary01",
    "WANDB_API_KEY": "canarycanarycanary02",
    "AWS_SECRET_ACCESS_KEY": "canary/canary+canary03",
    "AWS_ACCESS_KEY_ID": "AKIACANARYCANARY0004",
    "OPENAI_API_KEY": "sk-canarycanarycanary05",
}


def test_no_secret_is_in_what_a_run_writes(tmp_path, monkeypatch):
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)

    def leaky(completions, **kwargs):
        raise ValueError(f"401 for {' '.join(CANARIES.values())} at https://me:canary06@host/data")

    monkeypatch.setattr("sys.argv", ["groupwise", "train", "--token", CANARIES["HF_TOKEN"]])
    trainer_of(tmp_path, **{"run.name": "good"}).train()
    with pytest.raises(GroupwiseError):
        trainer_of(tmp_path, [leaky], **{"run.name": "bad", "rewards.on_error": "stop"}).train()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    secrets = [value.encode() for value in [*CANARIES.values(), "canary06"]]
    leaks = [(path.name, secret) for path in files for secret in secrets if secret in path.read_bytes()]
    assert leaks == []


def test_no_secret_is_in_what_a_reward_logs_or_fails_with(tmp_path, monkeypatch):
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)

    def chatty(completions, log_extra, **kwargs):
        log_extra("env", [{"all": repr(CANARIES), "n": [1, 2]}] * len(completions))
        return [Unknown(" ".join(CANARIES.values())) if row == 3 else float(row) for row in range(len(completions))]

    run = trainer_of(tmp_path, [chatty]).train()
    rows = run.rollouts(1)
    assert rows[3].outcome == "unknown" and rows[3].why
    assert rows[0].extra["env"]["n"] == [1, 2] and "HF_TOKEN" in rows[0].extra["env"]["all"]
    told = [str(part) for row in rows for part in (row.extra, row.why)]
    assert not [secret for secret in CANARIES.values() for text in told if secret in text]


def test_a_strangers_run_is_looked_at_without_running_its_code(tmp_path, monkeypatch, capsys):
    from groupwise.cli.main import main

    monkeypatch.chdir(tmp_path)
    home = tmp_path / "theirs"
    home.mkdir()
    write_small_model(home / "model", hidden=32, layers=1, heads=2)
    (home / "evil.py").write_text(
        "from pathlib import Path\nPath('sprung').touch()\n"
        "def judge(completions, **k):\n    return [0.0] * len(completions)\n"
    )
    trainer = trainer_of(tmp_path, [small_letters], model=str(home / "model"))
    run = trainer.train()
    recipe = (run.path / "recipe.toml").read_text()
    stranger = tmp_path / "stranger"
    shutil.move(run.path, stranger)
    text = recipe.replace('"(in memory) small_letters"', '"evil.py:judge"')
    (stranger / "recipe.toml").write_text(text)
    record = json.loads((stranger / "run.json").read_text())
    (stranger / "run.json").write_text(json.dumps({**record, "recipe_folder": "/proc/self/cwd/theirs"}))
    assert RunFolder.open(stranger).metrics.read()
    assert main(["replay", str(stranger), "--step", "1"]) == 1
    assert "was not made here" in capsys.readouterr().err
    assert not (tmp_path / "sprung").exists()


def test_a_run_that_was_made_here_runs_its_own_code(tmp_path):
    run = trainer_of(tmp_path).train()
    run.check_own()
    moved = tmp_path / "moved"
    shutil.move(run.path, moved)
    with pytest.raises(RunError, match="was not made here"):
        RunFolder.open(moved).check_own()
