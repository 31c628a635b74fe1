"""Did you mean ...? For settings that do not exist and for values that are not among the choices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from groupwise.config import schema
from groupwise.config.names import Name, dotted


def similar(word: str, options: Iterable[str], likeness: float = 0.6) -> str | None:
    """The option that the word may have meant. Example: `similar("groupSize", ["group_size", "steps"])`"""
    plain = {option.lower().replace("-", "_"): option for option in options}
    matches = get_close_matches(word.lower().replace("-", "_"), plain, n=1, cutoff=likeness)
    return plain[matches[0]] if matches else None


def settings_like(name: Name, task_kind: object = None) -> list[Name]:
    """Settings or tables that an unknown name may have meant, the likeliest kind of slip first.

    It is almost a table (`[reward]`), stands in another table (`train.lr`), is misspelt in its own (`train.groupsize`),
    or both (`train.temprature`).
    """
    word = str(name[-1])
    everywhere = _everywhere(task_kind)
    almost = similar(word, schema.keys(schema.root()), likeness=0.85) if len(name) == 1 else None
    tables: list[Name] = [(almost,)] if almost else []
    if exact := [each for each in everywhere if each[-1] == word]:
        return [*tables, *exact][:3]
    table = schema.find(name[:-1], task_kind)
    siblings = schema.keys(table, task_kind) if table is not None else {}
    if sibling := similar(word, siblings):
        return [(*name[:-1], sibling)]
    # Among so many names a faint likeness is chance.
    if leaf := similar(word, [str(each[-1]) for each in everywhere], likeness=0.8):
        return [each for each in everywhere if each[-1] == leaf][:3]
    return []


ELSEWHERE: Mapping[str, str] = {
    "learning_rate": "optimizer.lr",
    "max_completion_length": "sampling.max_new_tokens",
    "max_prompt_length": "task.max_prompt_tokens",
    "max_steps": "train.steps",
    "num_generations": "train.group_size",
    "reward_funcs": "rewards",
    "model_name_or_path": "model.id",
    "output_dir": "run.folder",
    "per_device_train_batch_size": "train.prompts_per_step",
}
"""What others call it, where no likeness of the words leads to ours."""


def unknown_setting(name: Name, task_kind: object = None) -> str:
    """The message for a name that no setting has."""
    if kinds := _other_kinds(name, task_kind):
        return f'unknown setting for kind = "{task_kind}". Only kind = {kinds} has it'
    if ours := ELSEWHERE.get(str(name[-1])):
        return f"unknown setting. Here it is called {ours}"
    likely = settings_like(name, task_kind)
    if not likely:
        return f"unknown setting. {_what_there_is(name[:-1], task_kind)}"
    meant = " or ".join(dotted(each) for each in likely)
    return f"unknown setting. Did you mean {meant}?{_default_of(likely, task_kind)}"


def _default_of(likely: list[Name], task_kind: object) -> str:
    if len(likely) > 1 or len(likely[0]) < 2:
        return ""
    value = schema.default(likely[0], task_kind)
    return f" (default {value})" if value not in ("unset", "required", "by preset") else ""


def _what_there_is(table: Name, task_kind: object) -> str:
    node = schema.find(table, task_kind)
    assert node is not None, table
    return f"{f'[{dotted(table)}]' if table else 'A recipe'} has {', '.join(schema.keys(node, task_kind))}"


def _other_kinds(name: Name, task_kind: object) -> str:
    """The kinds of task that have this setting, if the one at hand lacks it."""
    if name[0] != "task" or task_kind not in (kinds := schema.task_kinds()):
        return ""
    return " or ".join(f'"{kind}"' for kind in kinds if schema.find(name, kind) is not None)


def _everywhere(task_kind: object) -> list[Name]:
    found: list[Name] = []
    for section, node in schema.keys(schema.root()).items():
        inner = schema.keys(schema.item(node), task_kind)
        place: Name = (section, 0) if schema.item(node) is not node else (section,)
        found += [(section,), *((*place, key) for key in inner)]
    return found
