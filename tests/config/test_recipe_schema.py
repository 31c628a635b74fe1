"""The recipe's description of itself, which the documentation and `groupwise init` are made of."""

from groupwise.config import PRESETS, SchemaRow, load_recipe, schema_rows, section_doc
from groupwise.config.names import dotted, leaves
from groupwise.tasks import TASKS


def test_rows_by_hand():
    rows = {row.name: row for row in schema_rows("gsm8k")}
    assert rows["train.steps"] == SchemaRow("train.steps", "a whole number, at least 1", "200", "Number of GRPO steps.")
    assert rows["task.path"] == SchemaRow(
        "task.path",
        "text",
        '"openai/gsm8k"',
        "Id on the hub, or a folder with train.jsonl and test.jsonl (or parquet).",
    )
    assert rows["task.kind"][1:3] == ('one of "gsm8k"', "required")
    assert rows["lora.targets"][1:3] == ("text, or a list, each text", '"all-linear"')
    assert rows["reference.every"][1:3] == ("a whole number, at least 1", "unset")
    assert rows["algorithm.weights"][1:3] == ("text", "by preset")
    names = ", ".join(f'"{name}"' for name in PRESETS)
    assert rows["algorithm.preset"][1:3] == (f"one of {names}", '"grpo"')
    assert rows["algorithm.settings"][1:3] == ("a table", "{}")
    assert rows["algorithm.correction"][1:3] == ("text", "unset")
    assert rows["algorithm.filters"][1:3] == ("a list, each text", "[]")
    assert rows["algorithm.ratio"][2] == "by preset"
    assert rows["rewards.0.settings"][1:3] == ("a table", "{}")
    assert rows["optimizer.betas"][1:3] == ("a list of 2, each a number, at least 0, below 1", "[0.9, 0.999]")
    assert "task.digits" not in rows


def test_without_a_kind_every_kind_of_task_is_told_apart():
    rows = [row for row in schema_rows() if row.name.startswith("task.")]
    kinds = ", ".join(f'"{kind}"' for kind in sorted(TASKS))
    assert rows[0][:3] == ("task.kind", f"one of {kinds}", "required")
    assert [row.doc for row in rows if row.name == "task.digits"] == ['Of kind = "arithmetic": Digits of each number.']
    assert {row.default for row in rows if row.name == "task.path"} == {"required", '"openai/gsm8k"'}
    assert [row.name for row in rows].count("task.system_prompt") == 1


def test_rows_are_exactly_the_settings_of_a_recipe():
    for kind in TASKS:
        source = {"model": {"id": "x"}, "task": {"kind": kind}, "lora": {}, "rewards": [{"function": "f"}]}
        if kind == "mixture":
            source["task"]["parts"] = [{"name": "p", "task": {"kind": "gsm8k"}}]
        elif kind not in ("arithmetic", "gsm8k", "reasoning_gym"):
            source["task"]["path"] = "p"
        settings = {dotted(name) for name, _ in leaves(load_recipe(source).recipe.model_dump())}
        assert {row.name for row in schema_rows(kind)} == settings


def test_every_setting_and_every_section_is_documented():
    assert [row.name for row in schema_rows() if not row.doc] == []
    assert [row.name for kind in TASKS for row in schema_rows(kind) if not row.doc] == []
    for row in schema_rows():
        if "." in row.name:
            assert section_doc(row.name.split(".")[0])
    assert section_doc("task", "gsm8k") == "Grade-school word problems (arXiv 2110.14168)."


def test_defaults_are_overrides_that_change_nothing():
    source = {"model": {"id": "x"}, "task": {"kind": "gsm8k"}, "lora": {}}
    overrides = [
        f"{row.name}={row.default}"
        for row in schema_rows("gsm8k")
        if row.default not in ("required", "unset", "by preset") and not row.name.startswith("rewards.")
    ]
    assert len(overrides) > 40
    assert load_recipe(source, overrides).recipe == load_recipe(source).recipe
