"""An id that would have to be downloaded while nothing answers: one message within seconds."""

import socket
import time

import pytest
from huggingface_hub import constants

from groupwise.config.sections import ModelSection
from groupwise.errors import ModelError
from groupwise.models.hub import check_reachable
from groupwise.models.load import load_policy


@pytest.fixture
def nobody(monkeypatch):
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
        yield


@pytest.mark.usefixtures("nobody")
def test_nobody_answers():
    start = time.perf_counter()
    with pytest.raises(ModelError, match=r"nobody/nothing.*cannot be reached.*HF_ENDPOINT names a mirror"):
        load_policy(ModelSection(id="nobody/nothing"))
    assert time.perf_counter() - start < 10


@pytest.mark.usefixtures("nobody")
def test_folders_and_offline_use_ask_nobody(tmp_path, monkeypatch):
    check_reachable(str(tmp_path))
    check_reachable("./a-folder-that-is-not-there")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    check_reachable("nobody/nothing")
