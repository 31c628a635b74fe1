"""What a run comes to, in a few lines: said once, before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from rich.text import Text

from groupwise.rewards.code import boundary_of
from groupwise.runs.text import safe_text

if TYPE_CHECKING:
    from groupwise.training.build import Parts

Verb: TypeAlias = Literal["train", "sft", "eval"]

_LABELS = 11


def header(parts: Parts, verb: Verb) -> Text:
    """The lines that matter to the verb, label by label.

    model      Qwen2ForCausalLM, 494.0M parameters, 8.8M of them trained (LoRA r = 16)  Qwen/Qwen2.5-0.5B-Instruct
    device     cuda:0, bf16, trunk and branch
    task       gsm8k: 7,473 problems to train on, 128 held out; prompts of up to 212 tokens
    rewards    correctness + 0.5 x reward.py:short
    algorithm  grpo: group_normalized, clipped_ratio 0.8 to 1.2, sequence_mean, no KL term
    training   200 steps of 8 problems x 8 completions, adamw at 1e-06
    run        runs/run
    """
    recipe = parts.recipe
    lines = {"model": _model(parts, verb), "device": _device(parts), "task": _task(parts)}
    if verb != "sft":
        lines["rewards"] = " + ".join(_weighted(reward.name, reward.weight) for reward in parts.rewards) or "none"
        if (boundary := boundary_of(parts.rewards)) is not None:
            lines["sandbox"] = str(boundary)
    if verb == "train":
        lines["algorithm"] = _algorithm(parts)
        steps = f"{recipe.train.steps:,} steps of {recipe.train.prompts_per_step} problems x {recipe.train.group_size}"
        lines["training"] = f"{steps} completions, {recipe.optimizer.kind} at {recipe.optimizer.lr:g}"
    if verb == "sft":
        steps = f"{recipe.sft.steps:,} steps of {recipe.sft.rows_per_step} demonstrations"
        lines["training"] = f"{steps}, {recipe.optimizer.kind} at {recipe.optimizer.lr:g}"
    if verb != "eval":
        lines["run"] = str(Path(recipe.run.folder) / recipe.run.name)
    rows = [Text.assemble((f"{label:<{_LABELS}}", "dim"), safe_text(text)) for label, text in lines.items()]
    return Text("\n").join(rows)


def short_count(number: int) -> str:
    """`1,234`, `56.8k`, `494.0M`, `7.6B`."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1e3 if letter == 'k' else size):.1f}{letter}"
    return f"{number:,}"


def _model(parts: Parts, verb: Verb) -> str:
    policy, lora = parts.policy, parts.recipe.lora
    every = sum(parameter.numel() for parameter in policy.model.parameters())
    trained = sum(parameter.numel() for parameter in policy.trainable().values())
    share = "all trained" if lora is None else f"{short_count(trained)} of them trained (LoRA r = {lora.r})"
    share = "" if verb == "eval" else f", {share}"
    return f"{parts.recipe.model.id}  {type(policy.model).__name__}, {short_count(every)} parameters{share}"


def _device(parts: Parts) -> str:
    policy = parts.policy
    way = "trunk and branch" if policy.attention == "trunk_and_branch" else f"plain batches: {policy.why_plain}"
    return f"{policy.device}, {str(policy.dtype).removeprefix('torch.')}, {way}"


def _task(parts: Parts) -> str:
    report = parts.train.report
    held_out = 0 if parts.held_out is None else len(parts.held_out.problems)
    changed = [f"{report.dropped:,} dropped"] if report.dropped else []
    changed += [f"{report.truncated:,} truncated"] if report.truncated else []
    limit = f"limit {report.limit:,}" + (f", {' and '.join(changed)}" if changed else "")
    return (
        f"{parts.task.name}: {len(parts.train.problems):,} problems to train on, {held_out:,} held out; "
        f"prompts of up to {report.longest:,} tokens ({limit})"
    )


def _weighted(name: str, weight: float) -> str:
    return name if weight == 1 else f"{weight:g} x {name}"


def _algorithm(parts: Parts) -> str:
    section, surrogate = parts.recipe.algorithm, parts.algorithm.surrogate
    clips = f" {1 - section.clip_low:g} to {1 + section.clip_high:g}" if "clip_low" in surrogate.settings else ""
    level = "" if section.ratio == "token" else f" by {section.ratio}"
    kl = f"KL {section.divergence} x {section.beta:g}" if section.beta else "no KL term"
    kl += " in the reward" if section.beta and section.kl_in == "reward" else ""
    more = [f"entropy x {section.entropy:g}"] if section.entropy else []
    more += [section.correction] if section.correction else []
    more += [section.selection] if section.selection != "everything" else []
    more += [section.length_penalty] if section.length_penalty != "none" else []
    more += ["truncated ones masked"] if section.mask_truncated else []
    entries = (section.advantage, f"{surrogate.name}{clips}{level}", section.weights, kl, *more, *section.filters)
    return f"{section.preset}: {', '.join(entries)}"
