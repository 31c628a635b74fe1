"""The recipe as data about itself: names, types, defaults and documentation, read from the JSON schema of `Recipe`.

list(schema_rows())[1] == SchemaRow(
    name="train.steps", type="a whole number, at least 1", default="200", doc="Number of GRPO steps."
)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple, TypeAlias

from groupwise.config.names import Name, dotted
from groupwise.config.presets import PRESETS
from groupwise.config.recipe import Recipe
from groupwise.config.toml_text import toml_value

Node: TypeAlias = Mapping[str, Any]
"""A piece of JSON schema."""

_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minItems": "at least {} long",
    "maxItems": "at most {} long",
}
_WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "object": "a table",
    "array": "a list",
}


class SchemaRow(NamedTuple):
    """One setting. `default` is TOML text, or `required`, `unset`, `by preset`."""

    name: str
    type: str
    default: str
    doc: str


@cache
def root() -> Node:
    """The whole schema."""
    return Recipe.model_json_schema()


def alternatives(node: Node, task_kind: object = None) -> list[Node]:
    """The node with references followed and unions opened; of the kinds of task only the one named, if there is it."""
    if "$ref" in node:
        return [root()["$defs"][node["$ref"].rsplit("/", 1)[1]]]
    if "discriminator" in node:
        kinds: dict[str, str] = node["discriminator"]["mapping"]
        if isinstance(task_kind, str) and task_kind in kinds:
            return alternatives({"$ref": kinds[task_kind]})
        tables = [table for ref in kinds.values() for table in alternatives({"$ref": ref})]
        kind: Node = {
            "type": "string",
            "enum": list(kinds),
            "description": tables[0]["properties"]["kind"]["description"],
        }
        return [{"type": "object", "properties": {"kind": kind}, "required": ["kind"]}, *tables]
    if "anyOf" in node:
        return [each for option in node["anyOf"] for each in alternatives(option)]
    return [node]


def child(node: Node, part: str | int, task_kind: object = None) -> Node | None:
    """What stands under a key or a place in a list; None if nothing may."""
    for each in alternatives(node, task_kind):
        if isinstance(part, int):
            if "prefixItems" in each and part < len(each["prefixItems"]):
                return each["prefixItems"][part]
            if "items" in each:
                return each["items"]
        elif part in each.get("properties", {}):
            return each["properties"][part]
        elif each.get("additionalProperties"):
            inner = each["additionalProperties"]
            return {} if inner is True else inner
    return None


def find(name: Name, task_kind: object = None) -> Node | None:
    """The schema of a setting or a table by its name; None if there is no such setting."""
    node: Node | None = root()
    for part in name:
        node = child(node, part, task_kind)
        if node is None:
            return None
    return node


def keys(node: Node, task_kind: object = None) -> dict[str, Node]:
    """The settings of a table, in order, and `kind` first, which the others depend on."""
    found: dict[str, Node] = {}
    for each in alternatives(node, task_kind):
        for key, inner in each.get("properties", {}).items():
            found.setdefault(key, inner)
    return dict(sorted(found.items(), key=lambda item: item[0] != "kind"))


def json_types(node: Node) -> set[str]:
    """The JSON types that a value may have: "integer", "string", "null", ..."""
    return {each.get("type", "any") for each in alternatives(node)}


def choices(node: Node) -> list[str]:
    """The texts to choose from, where a setting has such a list."""
    found: list[str] = []
    for each in alternatives(node):
        found += each.get("enum", [each["const"]] if "const" in each else [])
    return found


def task_kinds() -> list[str]:
    """What `task.kind` may be."""
    return list(root()["properties"]["task"]["discriminator"]["mapping"])


def words(node: Node) -> str:
    """What is allowed. Example: `a list, each one of "+", "-", at least 1 long`."""
    return ", or ".join(dict.fromkeys(_words(each) for each in alternatives(node) if each.get("type") != "null"))


def default(name: Name, task_kind: object = None) -> str:
    """The default as TOML text, or `unset`, `required`, `by preset`."""
    if name[:-1] == ("algorithm",) and name[-1] in PRESETS["grpo"]:
        return "by preset"
    node, table = find(name, task_kind), find(name[:-1], task_kind)
    assert node is not None and table is not None
    if any(name[-1] in each.get("required", ()) for each in alternatives(table, task_kind)):
        return "required"
    if "default" in node:
        return "unset" if node["default"] is None else toml_value(node["default"])
    return "{}" if "object" in json_types(node) else "[]"


def doc(node: Node, task_kind: object = None) -> str:
    """The documentation of a setting or of a table, on one line."""
    texts = [node.get("description"), *(each.get("description") for each in alternatives(node, task_kind))]
    return " ".join(str(next((text for text in texts if text), "")).split())


def section_doc(section: str, task_kind: object = None) -> str:
    """What a table of the recipe is for. Example: `section_doc("sampling") == "How completions are drawn ..."`"""
    node = find((section,), task_kind)
    assert node is not None, section
    return doc(node, task_kind)


def schema_rows(task_kind: str | None = None) -> Iterator[SchemaRow]:
    """Every setting of the recipe, in order.

    With a `task_kind` those of that kind of task. Without one the settings that all kinds share stand once, and what
    only some have says in its documentation which one.
    """
    for section, node in keys(root()).items():
        if section == "task" and task_kind is None:
            yield from _task_rows(node)
        elif inner := keys(item(node), task_kind):
            prefix: Name = (section, 0) if json_types(node) == {"array"} else (section,)
            yield from (_row((*prefix, key), task_kind) for key in inner)
        else:
            yield _row((section,))


def _task_rows(node: Node) -> Iterator[SchemaRow]:
    kinds = task_kinds()
    for key, inner in keys(node).items():
        having = [kind for kind in kinds if key in keys(node, kind)]
        if key == "kind" or all(keys(node, kind).get(key) == inner for kind in kinds):
            yield _row(("task", key))
            continue
        for kind in having:
            row = _row(("task", key), kind)
            yield row._replace(doc=f'Of kind = "{kind}": {row.doc}')


def _row(name: Name, task_kind: str | None = None) -> SchemaRow:
    node = find(name, task_kind)
    assert node is not None, name
    return SchemaRow(dotted(name), words(node), default(name, task_kind), doc(node))


def item(node: Node) -> Node:
    """The schema of a list's items; the node itself where it is no list."""
    return node.get("items", node)


def _words(node: Node) -> str:
    if "allowed" in node:
        return node["allowed"]
    if options := choices(node):
        return "one of " + ", ".join(f'"{option}"' for option in options)
    if "prefixItems" in node:
        return f"a list of {len(node['prefixItems'])}, each {words(node['prefixItems'][0])}"
    text = _WORDS.get(node.get("type", ""), "anything")
    if "items" in node:
        text += f", each {words(node['items'])}"
    if node.get("minLength"):
        text += ", not empty"
    bounds = [phrase.format(node[key]) for key, phrase in _BOUNDS.items() if key in node]
    return ", ".join([text, *bounds])
