"""The command line `groupwise`: which verbs there are, and how what they do becomes an exit code.

    main(["train", "recipe.toml", "optimizer.lr=2e-5"])      # 0
    main(["train", "no.toml"])                               # 1, and one message on standard error

typer only reads the command line here; the verb runs after it, in `endings.py`, so that no library decides how an
error looks or what Ctrl-C means.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from typing import Any, get_type_hints

import typer

from groupwise.cli.algorithms import algorithms
from groupwise.cli.check import check
from groupwise.cli.demo import demo
from groupwise.cli.doctor import doctor
from groupwise.cli.endings import DONE, INTERRUPTED, MISTAKE, ended, is_text, refuse_word
from groupwise.cli.evaluate import evaluate
from groupwise.cli.explain import explain
from groupwise.cli.export import export
from groupwise.cli.import_ import import_
from groupwise.cli.init import init
from groupwise.cli.quiet import quiet_libraries
from groupwise.cli.replay import replay
from groupwise.cli.reward import reward
from groupwise.cli.sample import sample
from groupwise.cli.sft import sft
from groupwise.cli.train import train
from groupwise.cli.version import version
from groupwise.runs.text import safe_text

VERBS: dict[str, tuple[Callable[..., None], str]] = {
    "doctor": (doctor, "Look at this machine: what is missing, and its cure."),
    "demo": (demo, "A small model learns arithmetic on this CPU."),
    "init": (init, "Write a recipe and a reward to start from."),
    "check": (check, "Check a recipe: data, rewards, memory, time, baseline."),
    "train": (train, "Train by rewards (GRPO)."),
    "sft": (sft, "Train on demonstrations: the warm start."),
    "eval": (evaluate, "Evaluate on held-out problems."),
    "sample": (sample, "Give prompts to a model."),
    "replay": (replay, "Compute a recorded step again, and compare."),
    "export": (export, "Write a model for other programs."),
    "explain": (explain, "One GRPO step, with all its numbers."),
    "import": (import_, "Make a recipe of another trainer's settings."),
    "reward": (reward, "Try reward functions on answers."),
    "algorithms": (algorithms, "List the algorithms and what they are made of."),
    "version": (version, "Say what is installed."),
}
"""In the order of a first day. Every one imports what it needs when it is called."""

HELP = """GRPO training of language models in which the group is the unit all the way down.

\b
A first day:
  groupwise doctor
  groupwise demo
  groupwise init my-task
  groupwise train my-task/recipe.toml
  groupwise sample runs/NAME"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Without arguments those of the process are taken."""
    asked: list[Callable[[], None]] = []
    line = list(sys.argv[1:] if arguments is None else arguments)
    if broken := next((word for word in line if not is_text(word)), None):
        return ended(functools.partial(refuse_word, broken))
    try:
        _reader(asked)(line or ["--help"], prog_name="groupwise")
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as end:
        if end.code:  # typer ends with 2 on a command line that it cannot read; here 2 is kept for our own mistakes
            if dashed := next((word for word in line if _is_dashed_setting(word)), None):
                sys.stderr.write(f"A setting is written without dashes: {safe_text(dashed.lstrip('-'))}\n")
            return MISTAKE
    if not asked:
        return DONE
    quiet_libraries()
    return ended(asked[0])


def _is_dashed_setting(word: str) -> bool:
    """`--optimizer.lr=2e-5`, as other trainers have it; no option of ours has a dot in its name."""
    return word.startswith("--") and "." in word.partition("=")[0]


def _reader(asked: list[Callable[[], None]]) -> typer.Typer:
    """An app that, called with a command line, appends what is to be done to `asked`."""
    app = typer.Typer(
        name="groupwise",
        help=HELP,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, (verb, short_help) in VERBS.items():
        app.command(name, short_help=short_help)(_noted(verb, asked))
    return app


def _noted(verb: Callable[..., None], asked: list[Callable[[], None]]) -> Callable[..., None]:
    """What typer calls in place of the verb. A verb with many options takes a dataclass, and typer sees its fields."""
    whole = _dataclass_of(verb)

    def note(**given: Any) -> None:
        asked.append(functools.partial(verb, **given) if whole is None else functools.partial(verb, whole(**given)))

    functools.update_wrapper(note, verb)
    if whole is not None:
        fields = get_type_hints(whole, include_extras=True)
        parameters = [
            parameter.replace(annotation=fields[name])
            for name, parameter in inspect.signature(whole).parameters.items()
        ]
        vars(note)["__signature__"] = inspect.Signature(parameters)
        note.__annotations__ = fields
    return note


def _dataclass_of(verb: Callable[..., None]) -> type[Any] | None:
    """The dataclass that is the verb's only parameter, if it is one."""
    kind = next(iter(get_type_hints(verb).values()), None)
    return kind if isinstance(kind, type) and is_dataclass(kind) else None
