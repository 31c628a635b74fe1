"""The sandbox's endurance run, on fewer programs than `python bench/sandbox.py --endure 10000` takes."""

import sys

import pytest

from groupwise.rewards.code import detect
from sandbox import MIXTURE, Left, endure


@pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")
def test_nothing_is_left_of_many_programs():
    boundary, server = detect(at_once=64)
    if server is None:
        pytest.skip(f"no code sandbox on this machine: {boundary.reasons}")
    try:
        ends, left, _ = endure(server, 20 * len(MIXTURE))
    finally:
        server.close()
    assert left == Left(0, 0, 0, 0, 0, 0)
    assert ends == {"finished": 380, "crashed": 60, "violation": 20, "output": 20}
