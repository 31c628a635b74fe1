"""TF32 and its like are found out, by whichever of torch's settings they were asked for."""

import subprocess
import sys

import pytest

SCRIPT = """
import torch
from groupwise.models.precision import multiplies_exactly
{}
print(multiplies_exactly(torch.device("cuda")), multiplies_exactly(torch.device("cpu")))
"""


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("", "True True"),
        ('torch.backends.cuda.matmul.fp32_precision = "tf32"', "False True"),
        ('torch.backends.mkldnn.matmul.fp32_precision = "bf16"', "True False"),
        ('torch.backends.fp32_precision = "tf32"', "False False"),
        ("torch.backends.cuda.matmul.allow_tf32 = True", "False True"),
        ('torch.set_float32_matmul_precision("medium")', "False False"),
        ('torch.set_float32_matmul_precision("highest")', "True True"),
    ],
)
def test_what_torch_was_told(setting, expected):
    """In a process of its own: torch's settings of both kinds cannot be mixed."""
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(setting)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
