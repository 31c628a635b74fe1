"""What goes to a GPU goes there from pinned memory, without the host waiting; elsewhere nothing is copied in vain."""

import ast
from pathlib import Path

import pytest
import torch

import groupwise
from groupwise.models.transfer import on_device

CPU = torch.device("cpu")


def test_numbers_become_a_tensor():
    assert on_device([[5, 7, 11]], CPU).tolist() == [[5, 7, 11]]
    assert on_device([], CPU, torch.long).dtype == torch.long
    assert on_device([0.25, -1], CPU, torch.float64).tolist() == [0.25, -1.0]
    assert on_device(range(3), CPU).tolist() == [0, 1, 2]


def test_a_tensor_that_is_there_is_not_copied():
    x = torch.arange(3)
    assert on_device(x, CPU) is x
    assert on_device(x, CPU, torch.float32).tolist() == [0.0, 1.0, 2.0]


class Pinned:
    """What a tensor of the host is asked for on its way to a GPU."""

    def __init__(self):
        self.device, self.asked = CPU, []

    def pin_memory(self):
        self.asked.append("pinned")
        return self

    def to(self, device, **how):
        self.asked.append((device, how))
        return self


@pytest.mark.parametrize(
    ("device", "asked"),
    [
        (torch.device("cuda:1"), ["pinned", (torch.device("cuda:1"), {"non_blocking": True})]),
        (torch.device("mps"), [(torch.device("mps"), {})]),
    ],
)
def test_the_way_to_a_gpu(device, asked, monkeypatch):
    tensor = Pinned()
    monkeypatch.setattr("groupwise.models.transfer.torch.as_tensor", lambda values, dtype: tensor)
    assert on_device([1], device).asked == asked


def test_nobody_takes_another_way():
    """`torch.tensor(numbers, device=...)` and `.to(device)` of a tensor made on the host would wait for the GPU. What
    is computed with in every step, or micro-batch, goes by `on_device`."""
    root = Path(groupwise.__file__).parent
    # Once for a run: a probe of two trees, the copy of a norm's constant, the sums of several ranks.
    once = {"models/selfcheck.py", "engines/fused.py", "learner/world.py"}
    found = set()
    for path in (path for room in ("engines", "models", "learner") for path in (root / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            makes_one = isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.tensor"
            if makes_one and any(keyword.arg == "device" for keyword in node.keywords):
                found.add(path.relative_to(root).as_posix())
    assert found == once
