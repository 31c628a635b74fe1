"""`groupwise eval`: how good is a model on problems that it never trained on?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from groupwise.cli.train import Overrides

if TYPE_CHECKING:
    from groupwise.cli.subject import Subject
    from groupwise.runs.folder import RunFolder
    from groupwise.training.evaluate import Evaluation


def evaluate(
    what: Annotated[str, typer.Argument(metavar="RUN|RECIPE|MODEL", help="A run folder, a recipe, or a model.")],
    overrides: Overrides = None,
    show: Annotated[int, typer.Option(metavar="N", min=0, help="Show so many wrong and so many right answers.")] = 3,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the result and every answer. A run keeps its own unless told so.")
    ] = None,
) -> None:
    """Evaluate on held-out problems: greedy accuracy, pass@k if asked for, every answer kept.

    groupwise eval runs/demo evaluation.problems=500 'evaluation.pass_at=[1,4]'

    A model alone needs a task: groupwise eval Qwen/Qwen2.5-0.5B-Instruct task.kind=gsm8k
    """
    from groupwise.cli.pictures import answers_table
    from groupwise.cli.progress import TerminalReporter, terminal
    from groupwise.cli.subject import subject

    given = overrides or []
    about = subject(what, given, with_task=True)
    _refuse_what_only_the_program_knew(about)
    if about.run is not None:
        from groupwise.training.build import names_code

        if names_code(about.loaded.recipe):
            about.run.check_own()
    kept = _place_of_results(about, out)
    console = terminal()
    with TerminalReporter(console) as reporter:
        with console.status(f"loading {about.loaded.recipe.model.id}"):
            from groupwise.cli.header import header
            from groupwise.training.trainer import Trainer

            trainer = Trainer.from_recipe(about.loaded, reporter)
            parts = trainer.parts
        console.print(header(parts, "eval"), soft_wrap=not console.is_terminal)
        evaluation = trainer.evaluate()
        reporter.evaluated(f"{len(evaluation.greedy_correct())} problems", str(evaluation))
    if show:
        judged, ascii_only = evaluation.accuracy is not None, console.options.ascii_only
        console.print(answers_table(evaluation.answers, show, ascii_only=ascii_only, judged=judged))
    if kept is not None:
        file = _keep(kept, evaluation, about, given)
        console.print(f"every answer: {file}", soft_wrap=True)


def _refuse_what_only_the_program_knew(about: Subject) -> None:
    """A run of a program that trained on objects of its own: they are gone."""
    from groupwise.config.tasks import DatasetTask
    from groupwise.errors import RecipeError

    recipe, in_memory = about.loaded.recipe, "(in memory)"
    names = [recipe.task.path] if isinstance(recipe.task, DatasetTask) else []
    names += [recipe.task.environment or ""]
    names += [reward.function for reward in recipe.rewards]
    if any(name.startswith(in_memory) for name in names):
        raise RecipeError(
            "this run was made by a program that gave it a task or rewards of its own, which no recipe can name: "
            "evaluate it there, with Trainer(...).evaluate(), or name a recipe and override its model.id"
        )


def _place_of_results(about: Subject, out: Path | None) -> RunFolder | None:
    """The run, or the folder that was asked for, made now: a folder that cannot be written is said before the work."""
    from groupwise.errors import RunError
    from groupwise.runs.files import cannot_write
    from groupwise.runs.folder import RunFolder

    if out is None:
        return about.run
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(cannot_write(out, error, "--out")) from error
    return RunFolder(out)


def _keep(folder: RunFolder, evaluation: Evaluation, about: Subject, overrides: list[str]) -> Path:
    """Save it beside earlier ones, with what was evaluated and how."""
    from groupwise.runs.redaction import redact_arguments

    steps = 0 if about.run is None else max((int(row.get("step") or 0) for row in about.run.metrics.read()), default=0)
    what = {"model": about.loaded.recipe.model.id, "overrides": redact_arguments(overrides)}
    return folder.save_evaluation(steps, "eval", {**evaluation.result(), **what}, evaluation.answers)
