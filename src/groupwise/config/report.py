"""From pydantic's errors to ours: which setting, on which line, what was given, what is allowed, and the cure.

recipe.toml:7  train.groupsize: unknown setting. Did you mean train.group_size? (default 8)
recipe.toml:8  train.steps: got "8", needs a whole number, at least 1 (default 200). Take the quotes off: steps = 8
recipe.toml:1  model.id: missing. Write under [model]: id = "...". A folder, or the id of a model on the hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from groupwise.config import schema
from groupwise.config.cures import Wrong, cure
from groupwise.config.draft import COMMAND_LINE, Draft
from groupwise.config.names import Name, as_list, as_table, dotted
from groupwise.config.suggest import unknown_setting
from groupwise.config.toml_text import shown, toml_value

_FUNCTIONS = {"rewards": "reward function", "algorithm": "function itself"}


def explain(error: ValidationError, draft: Draft) -> None:
    """Note every problem that pydantic found, one for each setting."""
    kind = task_kind(draft.tree)
    found: dict[Name, str] = {}
    for detail in error.errors(include_url=False):
        if detail["type"] == "value_error" and not detail["loc"]:
            _note_disagreements(detail, draft)
            continue
        name, text = _describe(detail, draft, kind)
        found.setdefault(name, text)
    for name, text in found.items():
        # A union reports the whole and, for the alternative that came closer, the part: the part is enough.
        if not any(other[: len(name)] == name and other != name for other in found):
            draft.note(name, text)


def task_kind(tree: Mapping[str, Any]) -> object:
    """The `kind` of the task, whatever was written there."""
    return as_table(tree.get("task")).get("kind")


def note_unwritable(draft: Draft) -> None:
    """Note settings of functions that no recipe file could hold: they may be anything, so pydantic lets all pass."""
    rewards = as_list(draft.tree.get("rewards"))
    sections: dict[Name, object] = {("rewards", place): reward for place, reward in enumerate(rewards)}
    sections["algorithm",] = draft.tree.get("algorithm")
    for name, section in sections.items():
        for key, value in as_table(as_table(section).get("settings")).items():
            try:
                toml_value({key: value})
            except TypeError as error:
                draft.note(
                    (*name, "settings", key),
                    f"got {shown(value)}, which the recipe of a run cannot record ({error}). Use texts, numbers, true, "
                    f"false, dates, lists and tables; anything else belongs into the {_FUNCTIONS[str(name[0])]}",
                )


def _wrong_value(name: Name, value: object, draft: Draft, *, finite: bool = False) -> str:
    """The message for a value that a setting does not take."""
    kind = task_kind(draft.tree)
    node = schema.find(name, kind)
    assert node is not None, name
    text = f"got {shown(value)}, needs {schema.words(node)}{', finite' if finite else ''}"
    if not isinstance(name[-1], int) and "object" not in schema.json_types(node):
        fallback = schema.default(name, kind)
        text += f" (default {fallback})" if fallback not in ("required", "by preset", "unset") else ""
    advice = cure(Wrong(name, value, node, draft.origin(name).source == COMMAND_LINE)) or schema.doc(node, kind)
    return f"{text}. {advice}" if advice else text


def _describe(detail: ErrorDetails, draft: Draft, kind: object) -> tuple[Name, str]:
    """The setting and the message for one of pydantic's errors."""
    name, value = _real_name(detail, kind), detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            return name, unknown_setting(name, kind)
        case "missing" if isinstance(name[-1], int):
            return name[:-1], _wrong_value(name[:-1], value, draft)
        case "missing":
            return name, _missing(name, kind)
        case "union_tag_not_found":
            return (*name, "kind"), _missing((*name, "kind"), kind)
        case "union_tag_invalid":
            return (*name, "kind"), _wrong_value((*name, "kind"), value["kind"], draft)
        case "invalid_key":
            return name, f"the name of a setting must be text, got {shown(name[-1])}"
        case other:
            return name, _wrong_value(name, value, draft, finite=other == "finite_number")


def _real_name(detail: ErrorDetails, kind: object) -> Name:
    """pydantic's location without what it says of itself: which alternative of a union it tried, `[key]`."""
    node: schema.Node = schema.root()
    name: Name = ()
    loc = detail["loc"]
    for place, part in enumerate(loc):
        inner = schema.child(node, part, kind)
        if inner is not None:
            node = inner
        if inner is not None or (place == len(loc) - 1 and detail["type"] in ("extra_forbidden", "invalid_key")):
            name = (*name, part)
    return name


def _missing(name: Name, kind: object) -> str:
    node = schema.find(name, kind)
    assert node is not None, name
    table = f"[[{name[0]}]]" if isinstance(name[-2], int) else f"[{dotted(name[:-1])}]"
    example = schema.words(node) if schema.choices(node) else '"..."'
    return f"missing. Write under {table}: {name[-1]} = {example}. {schema.doc(node)}"


def _note_disagreements(detail: ErrorDetails, draft: Draft) -> None:
    """Rules across sections: one a line, `setting: what is wrong and how to mend it`."""
    for line in str(detail.get("ctx", {})["error"]).splitlines():
        setting, _, text = line.partition(": ")
        draft.note(tuple(setting.split(".")), text)
