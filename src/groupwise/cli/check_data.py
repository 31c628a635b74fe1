"""What `groupwise check` says of problems and prompts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from groupwise.cli.check_rewards import gold_of
from groupwise.cli.findings import Finding

if TYPE_CHECKING:
    from groupwise.training.build import Parts
    from groupwise.types import Problem

_SHOWN = 500


def data(parts: Parts) -> Iterator[Finding]:
    """How many rows, which prompts are too long, which stand there twice, and what is in both splits."""
    lines = [f"train    {parts.train.report}"]
    if parts.held_out is not None:
        lines.append(f"held out {parts.held_out.report}")
    long = parts.train.report.dropped + parts.train.report.truncated
    cure = "raise task.max_prompt_tokens or lower sampling.max_new_tokens, if they should be kept whole" if long else ""
    yield Finding("data", "warning" if long else "ok", "\n".join(lines), cure, {"problems": len(parts.task.train)})
    yield from overlaps(parts)
    if not parts.task.held_out:
        text = "no problems are held out, so nothing will be evaluated"
        yield Finding("data", "warning", text, "set task.hold_out or task.eval_split")


def overlaps(parts: Parts) -> Iterator[Finding]:
    """Which problems stand there twice, and which are in both splits."""
    train, held_out = parts.task.train, parts.task.held_out
    yield from _splits(parts)
    # What an environment does depends on all columns; else who asks the same asks for the same.
    key = _key if parts.task.environment is None else _key_of_all
    copies = Counter(map(key, train))
    repeated = sum(count - 1 for count in copies.values())
    if repeated:
        example = next(problem.id for problem in train if copies[key(problem)] > 1)
        text = f"{repeated:,} of {len(train):,} training problems are copies of others, such as {example!r}"
        yield Finding("data", "warning", text, "remove them, unless they are to count more", {"copies": repeated})
    shared = copies.keys() & set(map(key, held_out))
    if shared:
        example = next(problem.id for problem in held_out if key(problem) in shared)
        text = f"{len(shared):,} of {len(held_out):,} held-out prompts are trained on, such as {example!r}"
        cure = "take them out of the training rows, or use task.hold_out: the evaluation says nothing otherwise"
        yield Finding("data", "warning", text, cure, {"shared": len(shared)})


def prompt(parts: Parts) -> Iterator[Finding]:
    """The first prompt as the model reads it, what ends a completion, and whether the answer stands in the prompt."""
    from groupwise.engines.embedded import end_tokens

    tokenizer = parts.policy.tokenizer
    rendered = str(tokenizer.decode(list(parts.train.prompt_ids[0]), skip_special_tokens=False))
    shown = json.dumps(rendered, ensure_ascii=False)
    shown = shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN // 2]} ... {shown[-_SHOWN // 2 :]}"
    yield Finding("prompt", "ok", f"{len(parts.train.prompt_ids[0]):,} tokens: {shown}")
    ends = sorted(end_tokens(parts.policy) | set(parts.recipe.sampling.stop_token_ids))
    texts = [*map(repr, tokenizer.convert_ids_to_tokens(ends)), *map(repr, parts.recipe.sampling.stop)]
    if texts:
        yield Finding("prompt", "ok", f"a completion ends with {', '.join(texts)}")
    else:
        text = "nothing ends a completion but the limit of tokens: the model and the tokenizer name no end token"
        yield Finding("prompt", "warning", text, "set sampling.stop or sampling.stop_token_ids")
    told = [p for p in parts.train.problems if len(gold_of(p.columns)) > 2 and gold_of(p.columns) in str(p.prompt)]
    share = len(told) / len(parts.train.problems)
    if share > 0.05:
        text = f"{share:.0%} of the prompts contain their own answer, such as {told[0].id!r}"
        yield Finding("prompt", "warning", text, "is the answer meant to be seen? Look at a few", {"share": share})


def _splits(parts: Parts) -> Iterator[Finding]:
    section: Mapping[str, Any] = parts.recipe.task.model_dump()
    train, held_out = section.get("train_split"), section.get("eval_split")
    if train is not None and train == held_out and not section.get("hold_out"):
        text = f"task.eval_split and task.train_split are the same split, {train!r}: what is trained on is evaluated"
        yield Finding("data", "warning", text, "set task.hold_out, or name another split")


def _key(problem: Problem) -> str:
    prompt = problem.prompt
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=str)


def _key_of_all(problem: Problem) -> str:
    return f"{_key(problem)}|{json.dumps(dict(problem.columns), sort_keys=True, default=str)}"
