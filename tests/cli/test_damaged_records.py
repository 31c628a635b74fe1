"""A run folder whose records were damaged: what can be done is done, what cannot is said."""

import os
import shutil

import pytest

DAMAGES = {
    "empty": b"",
    "no JSON": b"\x00\xff{{{",
    "a list": b"[1, 2]\n",
    "a number": b"7\n",
    "deep": b"[" * 100_000 + b"\n",
    "no object": b'"step"\n{"step": 1}\n',
    "wrong kinds": b'{"step": "one", "format": "1", "attempts": 7, "status": [], "id": {}}\n{"step": [2]}\n',
    "nulls": b'{"step": null, "format": null, "attempts": null, "recipe_folder": null}\n{}\n',
    "a huge step": b'{"step": 1e400}\n{"step": 2}\n',
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["run.json", "metrics.jsonl", "evals.jsonl", "alarms.jsonl"])
def test_a_damaged_record(groupwise, trained, tmp_path, monkeypatch, file, damage):
    """Whatever stands in it: what can be done is done, what cannot is said."""
    run = tmp_path / "runs" / "full"
    shutil.copytree(trained["full"], run)
    monkeypatch.chdir(tmp_path)
    (run / file).write_bytes(DAMAGES[damage])
    words = ("train", trained["full"].parents[1] / "recipe.toml", "run.name=full", "train.steps=3")
    if file == "metrics.jsonl":
        words = ("replay", run, "--step", 1)
    ended = groupwise(*words, *(["guards.preflight=false"] if words[0] == "train" else []))
    assert ended.code in (0, 1), ended.err[-2000:]
    assert "Traceback" not in ended.err


def _is_a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        ("lock", lambda path: path.write_bytes(DAMAGES["deep"]), "names no process"),
        ("metrics.jsonl", _is_a_folder, "A folder stands where a file belongs"),
        ("checkpoints/step_000002/MANIFEST.json", lambda path: path.write_bytes(DAMAGES["deep"]), "cannot be read"),
        ("checkpoints/latest", lambda path: (path.unlink(), os.mkfifo(path)), ""),
    ],
    ids=["deep lock", "a folder", "deep manifest", "a pipe"],
)
def test_damage_of_another_kind(groupwise, trained, tmp_path, monkeypatch, file, damage, says):
    run = tmp_path / "runs" / "full"
    shutil.copytree(trained["full"], run)
    monkeypatch.chdir(tmp_path)
    damage(run / file)
    recipe = trained["full"].parents[1] / "recipe.toml"
    ended = groupwise("train", recipe, "run.name=full", "train.steps=3", "guards.preflight=false")
    assert ended.code == (1 if says else 0)
    assert says in ended.err and "Traceback" not in ended.err
