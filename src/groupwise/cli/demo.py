"""`groupwise demo`: the whole product on a bare machine, in minutes.

No GPU, no network, no account. A small model is made, learns from demonstrations what answers look like, and gets most
of them wrong. Then GRPO: the same code as `groupwise train`, with the two recipes that lie beside this file.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from groupwise.errors import RunError

if TYPE_CHECKING:
    from rich.console import Console

    from groupwise.runs.folder import RunFolder

RECIPES = Path(__file__).parent
SHOWN = 6


def demo(
    folder: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    seed: Annotated[int, typer.Option(help="Model, problems and sampling follow from it.")] = 0,
) -> None:
    """Watch a small model learn arithmetic: a few minutes on a CPU, nothing is downloaded."""
    from groupwise.cli.progress import TerminalReporter, terminal
    from groupwise.cli.quiet import quiet_libraries
    from groupwise.config import load_recipe
    from groupwise.runs.files import cannot_write
    from groupwise.training.trainer import Trainer

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(cannot_write(folder, error, "--folder")) from error
    quiet_libraries()
    console = terminal()
    start = time.monotonic()
    name = _free_name(folder)
    common = [f"seed={seed}", f'run.folder="{folder}"']
    with TerminalReporter(console) as reporter:
        untrained = folder / f"{name}-untrained"
        write_untrained(untrained, seed)
        console.print(f"1/2  An untrained model ({untrained}) learns from correct demonstrations.")
        first = [f'model.id="{untrained}"', f"run.name={name}-warm-start"]
        warm = Trainer.from_recipe(load_recipe(RECIPES / "demo_warm_start.toml", [*common, *first]), reporter).sft()
        console.print("2/2  GRPO: eight answers to each problem, rewarded 1 if right and 0 if wrong.")
        second = [f'model.id="{warm.model_path}"', f"run.name={name}"]
        run = Trainer.from_recipe(load_recipe(RECIPES / "demo.toml", [*common, *second]), reporter).train()
    _show(console, run, time.monotonic() - start)


def write_untrained(folder: Path, seed: int) -> None:
    """The demo's model: 1.2 million parameters, none of them trained."""
    from groupwise.models.small import write_small_model

    write_small_model(folder, hidden=160, seed=seed)


def _free_name(folder: Path) -> str:
    """`demo`, or `demo-2`, ... : the demo may be run again and again."""
    names = ["demo", *(f"demo-{n}" for n in range(2, 1000))]
    taken = ("", "-warm-start", "-untrained")
    return next(name for name in names if not any((folder / f"{name}{end}").exists() for end in taken))


def _show(console: Console, run: RunFolder, seconds: float) -> None:
    from groupwise.cli.pictures import curve, side_by_side
    from groupwise.cli.status_line import duration

    ascii_only = console.options.ascii_only
    evaluations = run.evaluations()
    before, after = evaluations[0], evaluations[-1]
    rewards = [value for _, value in run.metrics.series("reward")]
    console.print("\nShare of right answers while training, by step:")
    console.print(curve(rewards, ascii_only=ascii_only))
    answers = [[a for a in run.answers(evaluation) if a.greedy] for evaluation in (before, after)]
    console.print("\nThe same problems, never trained on, before and after GRPO:")
    console.print(side_by_side(answers[0], answers[1], limit=SHOWN, ascii_only=ascii_only))
    console.print(
        f"\nHeld-out problems answered right: {before['accuracy']:.2f} before, {after['accuracy']:.2f} after "
        f"({before['problems']} problems, greedy). {duration(seconds)} in all."
    )
    console.print(f"Everything is in {run.path}: the model, every rollout, every number.")
    console.print(f"Talk to it:    groupwise sample {run.path}")
    console.print("Your own task: groupwise init")
