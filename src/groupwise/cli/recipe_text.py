"""A recipe to start from: the settings that matter are set, all others stand there with their default, commented out.

recipe_text("gsm8k", {"model.id": '"Qwen/Qwen2.5-0.5B-Instruct"', "task.kind": '"gsm8k"', "train.steps": "100"})

Everything that is said about a setting is what the schema says about it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from groupwise.config import PRESETS, SchemaRow, schema_rows, section_doc
from groupwise.config.toml_text import toml_value

ORDER = (
    "model",
    "task",
    "rewards",
    "train",
    "sampling",
    "optimizer",
    "evaluation",
    "checkpoints",
    "run",
    "lora",
    "algorithm",
    "reference",
    "learner",
    "problems",
    "engine",
    "guards",
    "alarms",
    "budgets",
    "deadlines",
    "sft",
)
"""What one changes first comes first, and what is not named here last."""

EXAMPLES = {
    "model.revision": '"main"',
    "reference.every": "64",
    "algorithm.correction": '"token_truncate"',
    "task.system_prompt": '"Answer with a number only."',
    "task.max_prompt_tokens": "512",
    "task.name": '"main"',
    "task.revision": '"main"',
    "task.eval_split": '"test"',
    "task.limit": "1000",
    "task.train_size": "20_000",
    "task.eval_size": "256",
    "sft.path": '"demonstrations.jsonl"',
    "task.environment": '"environment.py:make"',
    "task.difficulty": "1",
    "turns.tokens": "256",
    "learner.token_budget": "4096",
    "loops.tokens": "128",
    "problems.passing": "1.0",
    "guards.memory_gb": "16.0",
    "budgets.hours": "8.0",
    "budgets.sampled_tokens": "100_000_000",
    "budgets.accuracy": "0.9",
    "budgets.patience": "5",
}
"""What stands behind the name of a setting that has no default."""

HEAD = """\
# A recipe of groupwise: everything that a run depends on.
#
#   groupwise train {file}
#   groupwise train {file} optimizer.lr=2e-5 train.steps=50      # the same names, set for one run
#
# A line such as "#dtype = ..." is a setting that is left at its default: take the # away to change it.
"""

_WIDTH = 110
_OPTIONAL = ("lora",)
"""Tables that switch something on by being there."""


def recipe_text(kind: str, chosen: Mapping[str, str], rewards: Sequence[Mapping[str, str]], file: str) -> str:
    """The text of a recipe for this kind of task. `chosen` and `rewards` hold TOML values by setting."""
    tables: dict[str, list[SchemaRow]] = {}
    for row in schema_rows(kind):
        tables.setdefault(row.name.partition(".")[0], []).append(row)
    lines = [HEAD.format(file=file), *_setting(tables["seed"][0], "seed", None)]
    for section in (*ORDER, *(name for name in tables if name not in (*ORDER, "seed"))):
        lines += _table(section, tables[section], kind, chosen, rewards)
    return "\n".join(lines) + "\n"


def _table(
    section: str, rows: list[SchemaRow], kind: str, chosen: Mapping[str, str], rewards: Sequence[Mapping[str, str]]
) -> Iterator[str]:
    if section == "rewards":
        yield "\n# What answers are graded by: functions whose values are added up, each with its weight."
        for place, reward in enumerate(rewards):
            yield "[[rewards]]" if place == 0 else "\n[[rewards]]"
            for row in rows:
                key = row.name.rpartition(".")[2]
                if place == 0:
                    yield from _setting(row, key, reward.get(key))
                elif key in reward:
                    yield f"{key} = {reward[key]}"
        return
    yield f"\n# {section_doc(section, kind)}"
    yield f"{'#' if section in _OPTIONAL else ''}[{section}]"
    for row in sorted(rows, key=lambda row: row.name not in chosen):
        yield from _setting(row, row.name.partition(".")[2], chosen.get(row.name))


def _setting(row: SchemaRow, key: str, value: str | None) -> Iterator[str]:
    """The line of a setting, what it means behind it, or above it where that is long."""
    line = f"{key} = {value}" if value is not None else f"#{key} = {_default(row)}"
    said = _said(row)
    if len(line) + len(said) + 4 <= _WIDTH:
        yield f"{line}  # {said}"
        return
    yield from textwrap.wrap(said, _WIDTH, initial_indent="# ", subsequent_indent="# ")
    yield line


def _said(row: SchemaRow) -> str:
    """What the schema says, with the choices where there are some."""
    if row.default == "unset":
        return f"{row.doc} (an example: not set by default)"
    options = row.type.removeprefix("one of ")
    if options == row.type or options.count(",") < 1:
        return row.doc
    return f"{row.doc} ({options.replace(chr(34), '')})"


def _default(row: SchemaRow) -> str:
    if row.default == "by preset":
        return toml_value(PRESETS["grpo"][row.name.partition(".")[2]])
    return EXAMPLES[row.name] if row.default == "unset" else row.default
