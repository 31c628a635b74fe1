"""`groupwise sample`: prompts in, completions out; from the command line, a file, a pipe, or somebody who types."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from groupwise.config.toml_lines import read_key
from groupwise.errors import RecipeError, TaskError
from groupwise.runs.text import safe_text
from groupwise.types import Completion, Prompt

if TYPE_CHECKING:
    from groupwise.cli.speaker import Speaker

ROWS = (".jsonl", ".json", ".csv", ".parquet")
"""Files of these kinds hold rows with a `prompt`; any other holds one prompt a line."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The command line of `groupwise sample`, an argument or option per field."""

    model: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run folder, or a model.")]
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[A.B=C ...]", help="Settings of model, sampling and task, such as model.dtype=bf16."),
    ] = None
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="One prompt.")] = None
    file: Annotated[Path | None, typer.Option(help="A file with a prompt a line, or of rows with a prompt.")] = None
    n: Annotated[int, typer.Option("--n", "-n", metavar="N", min=1, max=100_000, help="Completions per prompt.")] = 1
    temperature: Annotated[
        float | None,
        typer.Option(metavar="T", min=0, help="0 takes the likeliest token; default as in training, or 1."),
    ] = None
    max_new_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=10_000_000, help="Longest completion; unset: as in training, or 512."),
    ] = None
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same completions.")] = 0
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="System prompt; default as in training.")] = None
    style: Annotated[
        Literal["auto", "chat", "plain"] | None,
        typer.Option(help="How prompts are rendered (task.prompt_style); default as in training."),
    ] = None
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object per completion, one a line.")] = False

    def all_overrides(self) -> list[str]:
        """The overrides, and the options that are settings of a recipe."""
        from groupwise.config.toml_text import toml_value

        options = {
            "sampling.max_new_tokens": self.max_new_tokens,
            "task.system_prompt": self.system,
            "task.prompt_style": self.style,
        }
        given = [f"{name}={toml_value(value)}" for name, value in options.items() if value is not None]
        return [*(self.overrides or []), *given]


def sample(asked: Asked) -> None:
    """Give prompts to a model. Without --prompt and --file it reads them in, one a line, until Ctrl-D.

    A run's model is asked as it was in training: the same system prompt, rendering, temperature and limit.

    groupwise sample runs/demo --prompt '347+589=?' --n 4
    """
    from groupwise.cli.progress import terminal
    from groupwise.cli.subject import subject

    if asked.prompt is not None and asked.file is not None:
        raise RecipeError("--prompt and --file: give one of them, or neither to type prompts in")
    _refuse_bare_prompts(asked.overrides or [])
    about = subject(asked.model, asked.all_overrides())
    prompts = _given_prompts(asked)
    console, notes = terminal(), Console(stderr=True, markup=False, emoji=False, highlight=False)
    with notes.status(f"loading {asked.model}"):
        from groupwise.cli.speaker import Speaker

        speaker = Speaker.of(about.loaded, seed=asked.seed, temperature=asked.temperature)
    show = Shown(console, notes, asked.json, headed=asked.file is not None)
    if prompts is None:
        _converse(speaker, asked.n, show)
    else:
        _answer_all(speaker, prompts, asked.n, show)


def _refuse_bare_prompts(overrides: Sequence[str]) -> None:
    """A word that cannot be a setting was most likely meant as a prompt."""
    for word in overrides:
        try:
            parts, end = read_key(word)
        except ValueError:
            parts, end = (), 0
        if not parts or word[end : end + 1] != "=":
            raise RecipeError(
                f"{word!r} is no setting, such as model.dtype=bf16. A prompt is given as --prompt '...', many as "
                "--file FILE"
            )


@dataclass(frozen=True, slots=True)
class Shown:
    """How completions are printed: for people, or as JSON. What is not a completion goes to standard error."""

    console: Console
    notes: Console
    as_json: bool
    headed: bool
    """Whether each prompt stands above its completions."""

    def answer(self, prompt: Prompt, completions: Sequence[Completion], place: int) -> None:
        """Print all completions of a prompt, the `place`-th one."""
        if self.headed and not self.as_json:
            self._write(("\n" if place else "") + "> " + _words(prompt))
        for branch, completion in enumerate(completions):
            if self.as_json:
                self._write(_row(prompt, completion, place, branch))
                continue
            if len(completions) > 1:
                self._write(f"[{branch + 1}/{len(completions)}]")
            self._write(completion.text)
            if completion.finish_reason == "length":
                self.notes.print(f"(cut off after {len(completion.token_ids)} tokens)", style="dim")

    def _write(self, text: str) -> None:
        """As the model wrote it into a file or a pipe, and made harmless on a terminal; never wrapped."""
        self.console.file.write((safe_text(text) if self.console.is_terminal else text) + "\n")
        self.console.file.flush()


def _row(prompt: Prompt, completion: Completion, place: int, branch: int) -> str:
    from groupwise.runs.files import to_json

    row: dict[str, Any] = {
        "prompt": prompt,
        "completion": completion.text,
        "finish_reason": completion.finish_reason,
        "tokens": len(completion.token_ids),
        "row": place,
        "branch": branch,
    }
    return to_json(row)


def _words(prompt: Prompt) -> str:
    """The prompt on one line; of a conversation its last message."""
    return " ".join((prompt if isinstance(prompt, str) else str(prompt[-1]["content"])).split())


def _given_prompts(asked: Asked) -> Sequence[Prompt] | None:
    """The prompts of the command line; None: they are read in."""
    if asked.file is not None:
        return _in_file(asked.file)
    return None if asked.prompt is None else [asked.prompt]


def _in_file(file: Path) -> list[Prompt]:
    from groupwise.tasks.reading import read_file
    from groupwise.tasks.rows import to_problems

    if file.suffix in ROWS:
        return [problem.prompt for problem in to_problems(read_file(file), str(file))]
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"--file {file} cannot be read: {error}") from error
    prompts: list[Prompt] = [line for line in lines if line.strip()]
    if not prompts:
        raise TaskError(f"--file {file} has no prompt in it: write one a line")
    return prompts


def _answer_all(speaker: Speaker, prompts: Sequence[Prompt], n: int, show: Shown) -> None:
    """Many prompts at once, printed in their order as soon as they are there."""
    at_once = max(1, speaker.max_rows // n)
    for start in range(0, len(prompts), at_once):
        batch = prompts[start : start + at_once]
        with show.notes.status(f"prompts {start + 1} to {start + len(batch)} of {len(prompts)}"):
            answers = speaker.complete(batch, n, first=start)
        for place, (prompt, completions) in enumerate(zip(batch, answers, strict=True), start):
            show.answer(prompt, completions, place)


def _converse(speaker: Speaker, n: int, show: Shown) -> None:
    """One prompt after the other, each on its own: the model is not told what was said before."""
    for place, prompt in enumerate(_typed(show.notes)):
        try:
            with show.notes.status("..."):
                completions = speaker.complete([prompt], n, first=place)[0]
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            show.notes.print("(stopped; Ctrl-D leaves)", style="dim")
            continue
        show.answer(prompt, completions, place)


def _typed(notes: Console) -> Iterator[str]:
    """Lines of standard input, asked for where somebody sits at it."""
    if not sys.stdin.isatty():
        try:
            yield from (line.strip("\r\n") for line in sys.stdin if line.strip())
        except UnicodeDecodeError as error:
            raise TaskError(f"standard input is not in {error.encoding}: {error}") from error
        return
    with suppress(ImportError):
        import_module("readline")  # lines can be edited and called back
    notes.print("A prompt a line; each stands alone. Ctrl-D leaves.", style="dim")
    while True:
        try:
            line = input("> ")
        except (EOFError, KeyboardInterrupt) as end:
            notes.print()
            if isinstance(end, KeyboardInterrupt):
                raise
            return
        if line.strip():
            yield line
