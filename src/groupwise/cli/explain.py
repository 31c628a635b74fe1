"""`groupwise explain`: one GRPO step on a small model made on the spot, told with the numbers that it worked with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from groupwise.explain.chapters import Chapter
    from groupwise.explain.walk import Walk
    from groupwise.explain.words import Words

COLOURS = {1: "green", -1: "red", 0: ""}


def explain(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[A.B=C ...]", help="Settings of a recipe, such as algorithm.preset=dr_grpo."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write it as one page with figures.")] = None,
    language: Annotated[Literal["en", "zh"], typer.Option(help="English or Chinese.")] = "en",
    draw: Annotated[
        int | None, typer.Option(min=1, help="Which random numbers; unset: the first with half of the answers right.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The model follows from it.")] = 0,
) -> None:
    """Walk through one real GRPO step: samples, rewards, advantages, ratios, clipping, KL, loss, and what moved.

    \b
    groupwise explain                            the worked example: 4 right of 8
    groupwise explain --html step.html           the same as a page with figures
    groupwise explain algorithm.preset=dr_grpo   any setting of a recipe
    """
    from groupwise.cli.progress import terminal
    from groupwise.cli.quiet import quiet_libraries
    from groupwise.explain.words import words

    quiet_libraries()
    console = terminal()
    walk = _walked(overrides or [], draw, seed)
    _tell(console, walk, words(language))
    if html is not None:
        _write(html, walk, language)
        console.print(f"\n{html}", soft_wrap=True)


def _walked(overrides: list[str], draw: int | None, seed: int) -> Walk:
    import asyncio
    from tempfile import TemporaryDirectory

    from groupwise.explain.example import prepare
    from groupwise.explain.walk import walk_of

    async def walked() -> Walk:
        with TemporaryDirectory(prefix="groupwise-explain-") as folder:
            return await walk_of(await prepare(Path(folder), overrides, seed), draw)

    return asyncio.run(walked())


def _tell(console: Console, walk: Walk, words: Words) -> None:
    from rich.text import Text

    from groupwise.cli.wrapping import wrapped
    from groupwise.explain.chapters import chapters

    console.print(Text(words["title"], style="bold"))
    console.print(Text(wrapped(words["lead"].format(parameters=f"{walk.parameters:,}"), console.width)))
    for chapter in chapters(walk, words):
        _tell_chapter(console, chapter, words)


def _tell_chapter(console: Console, chapter: Chapter, words: Words) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from groupwise.cli.wrapping import wrapped

    console.print()
    console.print(Text(chapter.title, style="bold cyan"))
    for text in chapter.paragraphs:
        console.print(Text(wrapped(text, console.width)))
    for formula in chapter.formulas:
        lines = wrapped(formula, console.width - 4).replace("\n", "\n    ")
        console.print(Text(f"    {lines}", style="bold"))
    if chapter.table is not None:
        table = Table(box=box.SIMPLE_HEAD, safe_box=True)
        for name in chapter.table.head:
            table.add_column(Text(name), overflow="fold")
        for row, tone in zip(chapter.table.rows, chapter.table.tones, strict=True):
            table.add_row(*(Text(cell) for cell in row), style=COLOURS[tone] or None)
        console.print(table)
    console.print(Text(f"{words['computed_by']} {', '.join(chapter.code)}", style="dim"))


def _write(path: Path, walk: Walk, language: Literal["en", "zh"]) -> None:
    from groupwise.errors import RunError
    from groupwise.explain.page import page
    from groupwise.runs.files import cannot_write

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(walk, language), encoding="utf-8")
    except OSError as error:
        raise RunError(cannot_write(path, error, "--html")) from error
