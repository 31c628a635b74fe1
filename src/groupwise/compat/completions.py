"""`log_completions`: every completion of the last step as a parquet file, and some of them on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from groupwise.types import Group, Prompt


def write_completions(folder: Path, step: int, groups: Sequence[Group]) -> Path:
    """TRL's file of the same name: step, prompt, completion, one column a reward function, advantage."""
    arrow: Any = import_module("pyarrow")
    parquet: Any = import_module("pyarrow.parquet")
    rows = [
        {
            "step": step,
            "prompt": group.problem.prompt if isinstance(group.problem.prompt, str) else list(group.problem.prompt),
            "completion": _completion(group.problem.prompt, rollout.completion.text),
            **rollout.reward_parts,
            "advantage": rollout.advantage,
        }
        for group in groups
        for rollout in group.rollouts
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"completions_{step:05d}.parquet"
    parquet.write_table(arrow.Table.from_pylist(rows), path)
    return path


def print_completions(step: int, groups: Sequence[Group], *, count: int | None, once_a_prompt: bool) -> None:
    """Prompt, completion, rewards, advantage; all of them, or so many."""
    table = Table(title=f"step {step}", show_lines=True)
    for column in ("prompt", "completion", "rewards", "advantage"):
        table.add_column(column)
    rollouts = [
        (group.problem.prompt, rollout)
        for group in groups
        for rollout in (group.rollouts[:1] if once_a_prompt else group.rollouts)
    ]
    for prompt, rollout in rollouts[:count]:
        parts = "\n".join(f"{name} {value}" for name, value in rollout.reward_parts.items())
        said = (_shown(prompt), rollout.completion.text, parts, f"{rollout.advantage:.2f}")
        table.add_row(*map(Text, said))
    Console().print(table)


def _completion(prompt: Prompt, text: str) -> str | list[dict[str, str]]:
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


def _shown(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(f"{m['role']}: {m['content']}" for m in prompt)
