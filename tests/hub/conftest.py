"""The stand-in for the hub, with everything that the tutorials' scripts and recipes ask for by id."""

import pytest
from hub_contents import QWEN, SMOLLM, write_gsm8k, write_model, write_stories
from hub_stand_in import Hub


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    with Hub() as hub:
        for kind, name, write in [
            ("models", QWEN, lambda at: write_model(at, "qwen2")),
            ("models", SMOLLM, lambda at: write_model(at, "llama")),
            ("datasets", "openai/gsm8k", write_gsm8k),
            ("datasets", "mlabonne/smoltldr", write_stories),
        ]:
            at = folder / name
            at.mkdir(parents=True)
            write(at)
            hub.add(kind, name, at)
        yield hub
