"""What `groupwise check` says of problems, prompts and rewards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from groupwise.cli.findings import Finding

if TYPE_CHECKING:
    from groupwise.training.build import Parts
    from groupwise.types import Problem

_SHOWN = 500
_PROBLEMS = 16
"""Of the training problems, so many are graded with their own answer and with nothing."""


def data(parts: Parts) -> Iterator[Finding]:
    """How many rows, which prompts are too long, which stand there twice, and what is in both splits."""
    train, held_out = parts.task.train, parts.task.held_out
    lines = [f"train    {parts.train.report}"]
    if parts.held_out is not None:
        lines.append(f"held out {parts.held_out.report}")
    long = parts.train.report.dropped + parts.train.report.truncated
    cure = "raise task.max_prompt_tokens or lower sampling.max_new_tokens, if they should be kept whole" if long else ""
    yield Finding("data", "warning" if long else "ok", "\n".join(lines), cure, {"problems": len(train)})
    yield from _splits(parts)
    copies = Counter(map(_key, train))
    repeated = sum(count - 1 for count in copies.values())
    if repeated:
        example = next(problem.id for problem in train if copies[_key(problem)] > 1)
        text = f"{repeated:,} of {len(train):,} training problems are copies of others, such as {example!r}"
        yield Finding("data", "warning", text, "remove them, unless they are to count more", {"copies": repeated})
    shared = copies.keys() & set(map(_key, held_out))
    if shared:
        example = next(problem.id for problem in held_out if _key(problem) in shared)
        text = f"{len(shared):,} of {len(held_out):,} held-out prompts are trained on, such as {example!r}"
        cure = "take them out of the training rows, or use task.hold_out: the evaluation says nothing otherwise"
        yield Finding("data", "warning", text, cure, {"shared": len(shared)})
    if not held_out:
        text = "no problems are held out, so nothing will be evaluated"
        yield Finding("data", "warning", text, "set task.hold_out or task.eval_split")


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
    told = [p for p in parts.train.problems if len(_gold(p.columns)) > 2 and _gold(p.columns) in str(p.prompt)]
    share = len(told) / len(parts.train.problems)
    if share > 0.05:
        text = f"{share:.0%} of the prompts contain their own answer, such as {told[0].id!r}"
        yield Finding("prompt", "warning", text, "is the answer meant to be seen? Look at a few", {"share": share})


def rewards(parts: Parts) -> Iterator[Finding]:
    """What the reward functions give a right answer and what they give those who did no work."""
    from groupwise.errors import GroupwiseError
    from groupwise.training.trainer import run_to_end

    if not parts.rewards:
        text = f"none is named, and the task {parts.task.name!r} brings none of its own"
        yield Finding("rewards", "error", text, '[[rewards]] with function = "correctness" or "reward.py:judge"')
        return
    problems = parts.train.problems[:_PROBLEMS]
    right = [_right_answers(parts, problem) for problem in problems]
    try:
        best = [max(run_to_end(_graded(parts, [p] * len(t), t))) for p, t in zip(problems, right, strict=True) if t]
        lazy = {
            "an empty answer": run_to_end(_graded(parts, problems, [""] * len(problems))),
            "the prompt again": run_to_end(_graded(parts, problems, [_text(p) for p in problems])),
        }
    except GroupwiseError as error:
        yield Finding("rewards", "error", str(error), "mend the reward function it names")
        return
    names = ", ".join(f"{reward.name} x {reward.weight:g}" for reward in parts.rewards)
    gold = f"right answers {_mean(best):.3g}" if best else "no right answers are known to try them with"
    told = ", ".join(f"{name} {_mean(values):.3g}" for name, values in lazy.items())
    values = {"gold": _mean(best) if best else None, **{name: _mean(found) for name, found in lazy.items()}}
    yield Finding("rewards", "ok", f"{names}\n{gold}; {told} (means over {len(problems)} problems)", values=values)
    if not best:
        return
    for name, found in lazy.items():
        paid = [i for i, value in enumerate(found) if value > 0 and value >= _mean(best)]
        if paid:
            text = f"{name} is rewarded as a right answer is, {found[paid[0]]:.3g}, for {problems[paid[0]].id!r}"
            yield Finding("rewards", "warning", text, "the policy will find that out: look at the reward function")
    if _mean(best) <= max(map(_mean, lazy.values())):
        text = "a right answer is not worth more than doing nothing, in any form that was tried"
        cure = "does the reward read the answer in the form that your prompt asks for?"
        yield Finding("rewards", "warning", text, cure)


def _splits(parts: Parts) -> Iterator[Finding]:
    section: Mapping[str, Any] = parts.recipe.task.model_dump()
    train, held_out = section.get("train_split"), section.get("eval_split")
    if train is not None and train == held_out and not section.get("hold_out"):
        text = f"task.eval_split and task.train_split are the same split, {train!r}: what is trained on is evaluated"
        yield Finding("data", "warning", text, "set task.hold_out, or name another split")


async def _graded(parts: Parts, problems: Sequence[Problem], texts: Sequence[str]) -> list[float]:
    """The reward of each of these completions; a completion that nobody grades counts as 0."""
    from groupwise.errors import RewardError
    from groupwise.rollouts.grade import graded
    from groupwise.types import Completion, Group, Rollout

    tokenizer = parts.policy.tokenizer
    groups = [
        Group(problem, (0,), (Rollout(Completion(ids, (0.0,) * len(ids), "stop", text)),))
        for problem, text in zip(problems, texts, strict=True)
        for ids in [tuple(tokenizer.encode(text, add_special_tokens=False))]
    ]
    done = await graded(groups, parts.rewards)
    failed = next((group.rollouts[0] for group in done if group.rollouts[0].outcome == "unknown"), None)
    if failed is not None:
        raise RewardError(failed.why)
    return [group.rollouts[0].reward or 0.0 for group in done]


def _right_answers(parts: Parts, problem: Problem) -> list[str]:
    """A right answer in the forms that graders read: the task's own demonstration, tags, a box, the bare answer."""
    gold = _gold(problem.columns)
    own = [parts.task.demonstrations(problem)] if parts.task.demonstrations is not None else []
    if not gold:
        return own
    tags = f"<reasoning>\n{gold}\n</reasoning>\n<answer>\n{gold}\n</answer>\n"
    return [*own, gold, f"#### {gold}", f"\\boxed{{{gold}}}", f"<answer>{gold}</answer>", tags]


def _gold(columns: Mapping[str, Any]) -> str:
    answer = columns.get("answer")
    return str(answer) if isinstance(answer, str | int | float) else ""


def _text(problem: Problem) -> str:
    return problem.prompt if isinstance(problem.prompt, str) else str(problem.prompt[-1]["content"])


def _key(problem: Problem) -> str:
    prompt = problem.prompt
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=str)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)
