"""Decoders to choose from."""

import pytest


@pytest.fixture
def by_torch(monkeypatch):
    """No compiled code, so that decoding goes through torch and can be looked at there."""
    monkeypatch.setattr("groupwise.engines.native.library", lambda source: None)
