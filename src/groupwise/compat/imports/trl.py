"""`trl grpo --config script_args.yaml`: TRL's script, model and training arguments in one flat file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from groupwise.compat.config import GRPOConfig
from groupwise.compat.imports.report import Imported, Line
from groupwise.compat.rules import RULES
from groupwise.compat.translate import DTYPES, refused, translate

_BUILT_IN = {
    "think_format_reward": "soft_format",
}
_LORA = {"lora_r": "r", "lora_alpha": "alpha", "lora_dropout": "dropout", "lora_target_modules": "targets"}
_MODEL_LOST = {
    "load_in_8bit": "weights of few bits cannot be trained here",
    "load_in_4bit": "weights of few bits cannot be trained here",
    "use_rslora": "set lora.alpha yourself: alpha / sqrt(r) * r",
    "use_dora": "train in Python: groupwise.compat.trl with peft_config=LoraConfig(use_dora=True)",
    "lora_modules_to_save": "train in Python: groupwise.compat.trl with peft_config=LoraConfig(...)",
    "lora_target_parameters": "train in Python: groupwise.compat.trl with peft_config=LoraConfig(...)",
    "reward_model_name_or_path": "train in Python: groupwise.compat.trl with reward_funcs=the id",
    "datasets": "a recipe has one data set: make it one",
}
_MODEL_IDLE = {
    "attn_implementation": "attention is by trunk and branch where that is proven equal",
    "dataset_streaming": "rows are read before the first step",
    "gradient_checkpointing_use_reentrant": "checkpointing is never reentrant",
    "ignore_bias_buffers": "there is one process",
}


def read_trl(given: Mapping[str, Any], source: str, problems: int) -> Imported:
    """The recipe. `problems` stands for the rows of the data set where epochs are asked for and nobody counted."""
    imported = Imported(source)
    known = {field.name for field in fields(GRPOConfig)}
    ours = {name: value for name, value in given.items() if name in known and name != "dtype"}
    _script(imported, {name: value for name, value in given.items() if name not in ours}, given)
    kept = _without_lost(imported, ours)
    translated = translate(GRPOConfig(**kept), problems)
    imported.settings |= translated.settings
    told = {sentence.split()[0]: sentence.partition(": ")[2] for sentence in translated.said}
    for name, value in kept.items():
        if RULES[name].verdict == "idle":
            imported.leave(name, value, told.get(name, RULES[name].words))
        else:
            imported.lines.append(Line(name, value, "taken", RULES[name].words))
    if kept.get("max_steps", -1) <= 0:
        name = "num_train_epochs"
        said = name if name in kept else f"{name} (not given, TRL's default)"
        steps = f"train.steps = {translated.settings['train.steps']} is for {problems:,} rows: give --rows, or set it"
        imported.lines = [line for line in imported.lines if line.name != name]
        imported.lines.append(Line(said, kept.get(name, 3), "lost", steps))
    return imported


def _without_lost(imported: Imported, given: Mapping[str, Any]) -> dict[str, Any]:
    lost = refused(GRPOConfig(**{k: v for k, v in given.items() if RULES[k].verdict != "refused"}))
    lost |= {name: RULES[name].words for name in given if RULES[name].verdict == "refused"}
    for name in given:
        if name in lost:
            imported.lose(name, given[name], lost[name])
    return {name: value for name, value in given.items() if name not in lost}


def _script(imported: Imported, script: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    imported.settings |= {"model.id": given.get("model_name_or_path", ""), "task.kind": "dataset"}
    takes = {
        "model_name_or_path": "model.id",
        "model_revision": "model.revision",
        "dataset_name": "task.path",
        "dataset_config": "task.name",
        "dataset_train_split": "task.train_split",
        "dataset_test_split": "task.eval_split",
    }
    for name, value in script.items():
        if name in takes:
            imported.take(name, value, {takes[name]: value})
        elif name == "dtype":
            imported.take(name, value, {"model.dtype": DTYPES.get(str(value), "auto")})
        elif name in _LORA or name == "use_peft":
            adapts = bool(given.get("use_peft"))
            settings = {f"lora.{_LORA[name]}": value} if name in _LORA else {"lora.r": given.get("lora_r", 16)}
            imported.take(name, value, settings) if adapts else imported.leave(name, value, "use_peft is not set")
        elif name == "reward_funcs":
            _rewards(imported, value)
        elif name in _MODEL_IDLE:
            imported.leave(name, value, _MODEL_IDLE[name])
        else:
            imported.lose(name, value, _MODEL_LOST.get(name, "it is not known here what it means"))


def _rewards(imported: Imported, value: Any) -> None:
    for name in value if isinstance(value, list) else [value]:
        module, dot, function = str(name).rpartition(".")
        if name in _BUILT_IN:
            imported.lose("reward_funcs", name, f"the built-in {_BUILT_IN[name]!r} is nearest; its tags are other ones")
        elif dot:
            imported.rewards.append({"function": f"{module}:{function}"})
            imported.take("reward_funcs", name, {})
        else:
            imported.lose("reward_funcs", name, 'the built-in "correctness" compares with the column `answer`')
