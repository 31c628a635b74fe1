"""Checkpoints on a disk that fails, under processes that are killed, and with bytes that were changed."""

import errno
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from crash import FAULTS, failing, killed, operations_of
from groupwise.errors import RunError
from groupwise.runs.checkpoints.manifest import Manifest
from groupwise.runs.checkpoints.store import Checkpoints, Contents
from groupwise.runs.checkpoints.tree import put_together, taken_apart


def contents(value):
    """Of a size that needs several files; every number in it says which one it is."""
    weights = {"weight": torch.full((3, 2), float(value)), "bias": torch.full((2,), value, dtype=torch.bfloat16)}
    made = Contents({"model/config.json": json.dumps(value).encode()}, {"model/model.safetensors": weights})
    return made.with_state({"step": value, "moments": [torch.full((2,), float(value))]})


def values(checkpoint):
    """The numbers in a checkpoint: all of them must be one."""
    state = checkpoint.state()
    model = load_file(checkpoint.model / "model.safetensors")
    config = json.loads((checkpoint.model / "config.json").read_text())
    tensors = [state["moments"][0], model["weight"], model["bias"].float()]
    return {config, state["step"], *(float(value) for tensor in tensors for value in tensor.reshape(-1))}


@pytest.fixture
def store(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", "this run")


def test_what_is_written_is_read(store):
    checkpoint = store.write(7, contents(7))
    assert store.newest().checkpoint == checkpoint
    assert values(checkpoint) == {7}
    assert (store.pointed("latest"), store.pointed("best")) == (7, None)
    assert sorted(path.name for path in checkpoint.path.iterdir()) == [
        "MANIFEST.json",
        "model",
        "state.json",
        "state.safetensors",
    ]


def test_every_kind_of_tensor_is_read_by_safetensors(store):
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
    kinds += [torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2]
    tensors = {str(kind): torch.tensor([0.0, 1.0, 0.0]).to(kind) for kind in kinds}
    tensors |= {"scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4), "strange \u00e9": torch.ones(1, 1, 2)}
    checkpoint = store.write(1, Contents(tensors={"all.safetensors": tensors}))
    read = load_file(checkpoint.path / "all.safetensors")
    assert {name: (t.dtype, t.shape) for name, t in read.items()} == {n: (t.dtype, t.shape) for n, t in tensors.items()}
    assert all(torch.equal(read[name].double(), tensors[name].double()) for name in tensors)


def test_state_comes_back_to_the_last_bit():
    numbers = [0.1, 1e-323, float("inf"), -float("inf"), 2**80, -0.0, True, None, "\ud800"]
    tree = {"a": numbers, "b": ({"$tensor": 1, "$$x": {"": torch.tensor(2)}},), "nan": float("nan")}
    plain, tensors = taken_apart(tree)
    back = put_together(json.loads(json.dumps(plain, allow_nan=False)), tensors)
    assert back["a"] == numbers
    assert [type(value) for value in back["a"]] == [type(value) for value in numbers]
    assert np.signbit(back["a"][5])
    assert back["b"][0]["$tensor"] == 1
    assert back["b"][0]["$$x"][""] == 2
    assert np.isnan(back["nan"])


def test_nothing_has_its_name_before_it_is_on_the_disk(store):
    """Every file and folder is synced before the rename, and what lists it after."""
    seen = operations_of(lambda: store.write(5, contents(5)))
    rename = seen.index(("rename", "step_000005"))
    synced = [name for operation, name in seen[:rename] if operation == "sync"]
    written = [name for operation, name in seen[:rename] if operation == "create"]
    assert set(written) | {"model", ".step_000005.part"} == set(synced)
    assert written[-1] == "MANIFEST.json"
    assert seen[rename + 1] == ("sync", "checkpoints")
    latest = next(place for place, (_, name) in enumerate(seen) if name == "latest")
    assert latest > rename


def test_killed_at_any_operation_the_last_whole_one_is_found(store):
    """The first is there; the second is written over nothing, the third over the second, and old ones are removed."""

    def work(step, value):
        def do():
            store.heal()
            store.write(step, contents(value))
            store.keep_only(1)

        return do

    store.write(10, contents(10))
    kills = 0
    for step, value, before in [(20, 20, {10}), (20, 21, {20})]:
        at = 1
        while True:
            shutil.copytree(store.folder, store.folder.with_name("before"), dirs_exist_ok=True)
            ended = not killed(work(step, value), at)
            store.heal()
            found = store.newest()
            assert found.checkpoint is not None
            assert values(found.checkpoint) in ({value}, before), f"killed before operation {at}"
            assert found.faults == (), "what a kill leaves is never taken for a checkpoint"
            assert not [path for path in store.folder.iterdir() if path.name.startswith(".")]
            if ended:
                assert values(found.checkpoint) == {value}
                assert store.steps() == [20]
                break
            shutil.rmtree(store.folder)
            store.folder.with_name("before").rename(store.folder)
            at += 1
        shutil.rmtree(store.folder.with_name("before"), ignore_errors=True)
        kills += at - 1
    assert kills > 60


@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_fails_leaves_the_last_whole_one(store, fault):
    store.write(10, contents(10))
    writes = len(operations_of(lambda: Checkpoints(store.folder.with_name("other"), "r").write(20, contents(20))))
    for at in range(1, writes + 1):
        with failing(FAULTS[fault], at) as seen:
            try:
                store.write(20, contents(20))
            except RunError as error:
                assert "cannot write" in str(error)
            else:
                assert len(seen) < at
        found = store.newest()
        assert values(found.checkpoint) in ({10}, {20})
        assert 10 in store.steps()
        store.heal()
        store.forget_after(10)
    store.write(20, contents(20))
    assert values(store.newest().checkpoint) == {20}


def test_what_a_signal_interrupts_is_done_again(store):
    writes = len(operations_of(lambda: store.write(10, contents(10))))
    for at in range(1, writes + 1):
        with failing(errno.EINTR, at, forever=False):
            store.write(10 + at, contents(at))
        assert values(store.newest().checkpoint) == {at}


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


FILES = ("MANIFEST.json", "state.json", "state.safetensors", "model/model.safetensors", "model/config.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [flip, cut, lambda path: path.unlink()], ids=["flipped", "cut", "missing"])
def test_damage_is_found_and_named_and_the_one_before_taken(store, name, damage):
    store.write(10, contents(10))
    damaged = store.write(20, contents(20))
    damage(damaged.path / name)
    found = store.newest(set_aside=True)
    assert values(found.checkpoint) == {10}
    assert len(found.faults) == 1
    assert "step_000020" in found.faults[0]
    assert name in found.faults[0]
    assert store.newest() == type(found)(found.checkpoint), "it was set aside, and is told once"
    store.write(20, contents(22))
    assert values(store.newest().checkpoint) == {22}


def test_any_flipped_bit_is_found(store):
    checkpoint = store.write(10, contents(10))
    path = checkpoint.path / "MANIFEST.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        found = store.newest()
        # A changed space between two words is no change.
        assert found.checkpoint is None or json.loads(path.read_bytes()) == json.loads(whole), place


def test_a_manifest_of_another_run_or_step_is_refused(store, tmp_path):
    store.write(10, contents(10))
    other = Checkpoints(tmp_path / "other", "another run")
    other.write(20, contents(20))
    shutil.copytree(other.folder / "step_000020", store.folder / "step_000020")
    shutil.copytree(store.folder / "step_000010", store.folder / "step_000030")
    found = store.newest()
    assert values(found.checkpoint) == {10}
    assert "is that of step 10" in found.faults[0]
    assert "belongs to another run" in found.faults[1]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "..\\b", "c:x"])
def test_a_manifest_that_leads_outside_is_refused(store, name):
    checkpoint = store.write(10, contents(10))
    manifest = Manifest.read(checkpoint.path)
    facts = next(iter(manifest.files.values()))
    (checkpoint.path / "MANIFEST.json").write_bytes(Manifest("this run", 10, {name: facts}).to_json())
    assert "outside the checkpoint" in store.newest().faults[0]


def test_only_whole_ones_count_when_old_ones_are_removed(store):
    for step in (10, 20, 30, 40):
        store.write(step, contents(step))
    store.point("best", 10)
    (store.folder / "step_000040" / "state.json").unlink()
    store.keep_only(2)
    assert store.steps() == [10, 20, 30]
    store.write(50, contents(50))
    store.keep_only(2)
    assert store.steps() == [10, 30, 50]
    assert store.pointed("best") == 10


def test_a_pointer_that_leads_nowhere_is_none(store):
    store.write(10, contents(10))
    for text in ("step_000099", "../..", "", "\udcff"):
        (store.folder / "latest").write_bytes(text.encode("utf-8", "surrogateescape"))
        assert store.pointed("latest") is None
