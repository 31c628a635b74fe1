"""A wandb that keeps what it is told in a file: enough for a script that logs in and for transformers' callback."""

import json
from pathlib import Path

run = None


class Settings(dict):
    pass


class _Config(dict):
    def update(self, *values, allow_val_change=None, **more):
        super().update(*[dict(value) for value in values], **more)


class _Run:
    name = "stand-in"
    id = "0"
    project = "stand-in"
    url = ""

    def __init__(self):
        self.summary, self.config = {}, config

    def log(self, row, step=None):
        log(row, step)

    def finish(self):
        pass

    def _label(self, **_):
        pass


config = _Config()


def login():
    return True


def init(**settings):
    global run
    run = _Run()
    run.project = settings.get("project")
    return run


def log(row, step=None):
    with Path("wandb.jsonl").open("a") as lines:
        lines.write(json.dumps({**row, "at": step}, default=str) + "\n")


def define_metric(*_, **__):
    pass


def watch(*_, **__):
    pass


def termwarn(*_, **__):
    pass


def finish():
    pass
