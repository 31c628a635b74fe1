"""Pictures in characters: a sparkline, a curve, and answers before and after side by side.

    sparkline([0.1, 0.4, 0.9])                    ▂▄█
    console.print(curve(rewards, width=60))       an area with its scale at the left and the steps below
    console.print(side_by_side(before, after))    a table of the same problems, answered twice
    console.print(answers_table(answers))         a table of some wrong and some right answers

`ascii_only` draws with plain characters, for output that is not UTF-8 (`console.options.ascii_only`). What a model
wrote reaches the screen through `safe_text` and as `Text`, never as markup.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from groupwise.runs.evaluations import EvaluatedAnswer
from groupwise.runs.text import safe_text
from groupwise.types import Prompt

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " ..::||##"
_LONGEST_CELL = 120


def sparkline(
    values: Sequence[float], low: float | None = None, high: float | None = None, ascii_only: bool = False
) -> str:
    """One character per value, between `low` and `high` (else the least and greatest); a space where it is not finite.

    Give the extremes of the whole run, so that noise at the end does not look like a trend.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return " " * len(values)
    low, high = (min(finite) if low is None else low), (max(finite) if high is None else high)
    levels = _ASCII if ascii_only else _BLOCKS
    return "".join(levels[_level(value, low, high, 8)] for value in values)


def curve(values: Sequence[float], width: int = 60, height: int = 8, ascii_only: bool = False) -> Text:
    """Values over steps as an area of blocks, `width` columns in all; more values than columns are averaged.

    The scale begins at 0 unless a value is below. Values that are not finite leave a gap.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Text("(nothing to plot)", style="dim")
    low, high = min(0.0, *finite), max(finite)
    if high <= low:
        high = low + 1
    labels = {0: f"{high:.2f}", height // 2: f"{(low + high) / 2:.2f}", height - 1: f"{low:.2f}"}
    margin = max(len(label) for label in labels.values())
    columns = _fitted(values, max(5, width - margin - 2))
    levels = [_level(value, low, high, 8 * height) for value in columns]
    picture = Text(no_wrap=True, overflow="crop")
    edge, corner, line = ("|", "+", "-") if ascii_only else ("│", "└", "─")
    for row in range(height):
        floor = 8 * (height - 1 - row)
        blocks = _ASCII if ascii_only else _BLOCKS
        area = "".join(blocks[min(8, max(0, level - floor))] for level in levels)
        picture.append(f"{labels.get(row, ''):>{margin}} {edge}", style="dim")
        picture.append(f"{area}\n", style="green")
    picture.append(f"{'':>{margin}} {corner}{line * len(columns)}\n", style="dim")
    picture.append(f"{'':>{margin}}  1{len(values):>{max(1, len(columns) - 1)}}", style="dim")
    return picture


def side_by_side(
    before: Sequence[EvaluatedAnswer], after: Sequence[EvaluatedAnswer], limit: int = 8, ascii_only: bool = False
) -> Table:
    """The first `limit` problems, in the order they were asked, with the greedy answer before and after training.

    Not the best ones: a table that picks what turned right would say nothing about the rest.
    """
    later = {answer.problem.id: answer for answer in after if answer.greedy}
    pairs = [(answer, later[answer.problem.id]) for answer in before if answer.greedy and answer.problem.id in later]
    shown = pairs[:limit]
    title = Text(f"the first {len(shown)} of {len(pairs)} held-out problems", style="dim")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    has_answer = any("answer" in first.problem.columns for first, _ in shown)
    for heading in ("problem", *(["expected"] if has_answer else []), "before", "after"):
        table.add_column(heading, overflow="fold")
    for first, second in shown:
        expected = [_excerpt(str(first.problem.columns.get("answer", "")))] if has_answer else []
        question = _excerpt(_question(first.problem.prompt))
        table.add_row(question, *expected, _marked(first, ascii_only), _marked(second, ascii_only))
    return table


def answers_table(
    answers: Sequence[EvaluatedAnswer], limit: int = 3, ascii_only: bool = False, *, judged: bool = True
) -> Group:
    """The first `limit` greedy answers that are wrong and the first that are right, in the order they were asked.

    `judged` says that the task knows right from wrong; without it they are the first `limit` answers.
    """
    greedy = [answer for answer in answers if answer.greedy]
    wrong, right = ([a for a in greedy if a.correct is truth] for truth in (False, True))
    shown = [*wrong[:limit], *right[:limit]]
    title = f"{_some(wrong, limit, 'wrong')}, {_some(right, limit, 'right')}"
    if not judged:
        shown = greedy[:limit]
        title = f"the first {len(shown)} of {len(greedy)} answers"
    table = Table(box=box.SIMPLE_HEAD)
    has_answer = any("answer" in answer.problem.columns for answer in shown)
    for heading in ("problem", *(["expected"] if has_answer else []), "answered"):
        table.add_column(heading, overflow="fold")
    for answer in shown:
        expected = [_excerpt(str(answer.problem.columns.get("answer", "")))] if has_answer else []
        answered = _marked(answer, ascii_only) if judged else _excerpt(answer.completion.text or "(nothing)")
        table.add_row(_excerpt(_question(answer.problem.prompt)), *expected, answered)
    # Not as the table's own title, which is broken where the table is narrow.
    return Group(Text(title, style="dim"), table)


def _some(answers: Sequence[EvaluatedAnswer], limit: int, kind: str) -> str:
    """How many of them are shown, in words that do not count to nothing."""
    if len(answers) <= limit:
        return f"{'all ' if len(answers) > 1 else ''}{len(answers)} {kind}" if answers else f"none {kind}"
    return f"{limit} of {len(answers)} {kind}"


def _level(value: float, low: float, high: float, top: int) -> int:
    """1 to `top` for a value between low and high; 0 draws nothing, for what is not finite."""
    if not math.isfinite(value):
        return 0
    if high <= low:
        return (top + 1) // 2
    return min(top, max(1, round((value - low) / (high - low) * top)))


def _fitted(values: Sequence[float], columns: int) -> list[float]:
    """Exactly as many values as columns: means of neighbours, or each value several times."""
    fitted: list[float] = []
    for column in range(columns):
        first = column * len(values) // columns
        last = max(first + 1, (column + 1) * len(values) // columns)
        finite = [value for value in values[first:last] if math.isfinite(value)]
        fitted.append(math.fsum(finite) / len(finite) if finite else math.nan)
    return fitted


def _marked(answer: EvaluatedAnswer, ascii_only: bool) -> Table:
    right, wrong = ("ok", "x") if ascii_only else ("✓", "✗")
    mark = Text(right if answer.correct else wrong, style="bold green" if answer.correct else "bold red")
    # Columns of their own: a word wider than the cell would leave the mark alone on its line.
    cell = Table.grid(padding=(0, 1))
    cell.add_column(no_wrap=True)
    cell.add_column(overflow="fold")
    cell.add_row(mark, _excerpt(answer.completion.text or "(nothing)"))
    return cell


def _excerpt(text: str) -> Text:
    """One paragraph; of a long one the beginning and the end, where the answer stands."""
    words = " ".join(safe_text(text).split())
    if len(words) > _LONGEST_CELL:
        words = f"{words[: _LONGEST_CELL // 3].strip()} ... {words[-_LONGEST_CELL * 2 // 3 :].strip()}"
    return Text(words)


def _question(prompt: Prompt) -> str:
    """What is asked: the text, or the last message of a conversation."""
    return prompt if isinstance(prompt, str) else str(prompt[-1].get("content", "")) if prompt else ""
