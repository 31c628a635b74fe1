"""What is different between the recipe of a run and the one that is to go on with it, and whether that may be.

    changes = changed_settings(old_toml, new_toml)
    changes[0]         Change("optimizer.lr", "1e-05", "2e-05", "warned", "what is learnt from here on is ...")

Accepted: it changes nothing that is learnt. Warned: the run goes on, and is another experiment from here on. Refused:
what the checkpoint holds would not fit, or would mean something else.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from groupwise.config.names import dotted, leaves
from groupwise.config.toml_text import toml_value
from groupwise.errors import RunError

Kind: TypeAlias = Literal["accepted", "warned", "refused"]

_EXPERIMENT = "from here on this is another experiment"
_OTHER_WEIGHTS = "the weights in the checkpoint are of another shape or another model"

KINDS: Mapping[str, tuple[Kind, str]] = {
    "seed": ("refused", "everything random so far came from the other one"),
    "train": ("warned", _EXPERIMENT),
    "train.steps": ("accepted", ""),
    "model": ("refused", _OTHER_WEIGHTS),
    "model.device": ("warned", "another device rounds differently"),
    "model.attention": ("warned", "it rounds differently"),
    "model.gradient_checkpointing": ("accepted", ""),
    "lora": ("refused", _OTHER_WEIGHTS),
    "lora.dropout": ("warned", _EXPERIMENT),
    "reference": ("warned", _EXPERIMENT),
    "reference.every": ("refused", "a reference that moves is in the checkpoint, one that stays is not"),
    "task": ("refused", "the place in the data would mean other problems"),
    "problems": ("refused", "the place in the data would mean other problems"),
    "rewards": ("warned", _EXPERIMENT),
    "sampling": ("warned", _EXPERIMENT),
    "loops": ("warned", _EXPERIMENT),
    "engine": ("accepted", ""),
    "algorithm": ("warned", _EXPERIMENT),
    "learner": ("warned", _EXPERIMENT),
    "learner.token_budget": ("accepted", ""),
    "learner.logprob_chunk": ("accepted", ""),
    "optimizer": ("warned", _EXPERIMENT),
    "optimizer.kind": ("refused", "its moments are stored in another form"),
    "evaluation": ("accepted", ""),
    "sft": ("warned", _EXPERIMENT),
    "sft.steps": ("accepted", ""),
    "sft.path": ("refused", "the place in the data would mean other demonstrations"),
    "checkpoints": ("accepted", ""),
    "alarms": ("accepted", ""),
    "budgets": ("accepted", ""),
    "guards": ("accepted", ""),
    "deadlines": ("accepted", ""),
    "turns": ("warned", _EXPERIMENT),
    "sandbox": ("warned", "what a program may do is not what it was"),
    "run": ("accepted", ""),
}
"""By section or setting; the longer name counts."""


@dataclass(frozen=True, slots=True)
class Change:
    """One setting that is different. `before` and `after` are as TOML has them, `unset` where there is none."""

    name: str
    before: str
    after: str
    kind: Kind
    why: str

    def __str__(self) -> str:
        why = f"  ({self.why})" if self.why else ""
        return f"{self.name}: {self.before} -> {self.after}{why}"


def changed_settings(before: str, after: str) -> list[Change]:
    """The settings that differ between two resolved recipes."""
    old, new = _flat(before), _flat(after)
    changes: list[Change] = []
    for name in dict.fromkeys([*old, *new]):
        values = old.get(name, "unset"), new.get(name, "unset")
        if values[0] != values[1]:
            changes.append(Change(name, *values, *kind_of(name)))
    return changes


def kind_of(name: str) -> tuple[Kind, str]:
    """What a change of this setting means. Example: `kind_of("lora.r")` is that of `lora`."""
    parts = name.split(".")
    prefixes = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    known = next((prefix for prefix in prefixes if prefix in KINDS), None)
    return KINDS[known] if known is not None else ("warned", _EXPERIMENT)


def refuse(changes: Iterable[Change], run: str) -> None:
    """Raise a `RunError` that lists all changes that cannot be."""
    if wrong := [change for change in changes if change.kind == "refused"]:
        lines = "\n".join(f"  {change}" for change in wrong)
        raise RunError(
            f"{run} cannot go on with these settings changed:\n{lines}\n"
            "Ways out: take them back, or begin another run (run.name=...)"
        )


def _flat(toml: str) -> dict[str, str]:
    tree: dict[str, Any] = tomllib.loads(toml)
    # A section in which nothing is set is no setting: its first one would be told twice.
    return {dotted(name): toml_value(value) for name, value in leaves(tree) if value != {}}
