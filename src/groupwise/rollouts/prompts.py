"""Render a task's prompts once, before anything is sampled, and settle which of them are too long.

    policy     a prompt of more tokens than the limit
    drop       its problem is not used
    truncate   keeps the end of it (and a BOS token at its start), for the question stands at the end
    error      stops with the first of them

Whatever happens is counted in a `FitReport`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from groupwise.errors import TaskError
from groupwise.rollouts.chat import PromptStyle, render
from groupwise.types import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LongPrompts: TypeAlias = Literal["drop", "truncate", "error"]

_SHOWN = 5
"""Long problems that a report names."""


@dataclass(frozen=True, slots=True)
class Room:
    """The longest prompt in tokens, and in words where that comes from.

    Example: `Room(1_536, "the model's context of 2,048 tokens less sampling.max_new_tokens = 512")`
    """

    tokens: int
    why: str = ""

    def __str__(self) -> str:
        return f"{self.tokens:,} tokens" + (f" ({self.why})" if self.why else "")


@dataclass(frozen=True, slots=True)
class FitReport:
    """What became of the prompts. `first_long` names the first problems that were too long; `longest` counts tokens."""

    problems: int
    limit: int
    longest: int
    dropped: int = 0
    truncated: int = 0
    first_long: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = f"{self.problems:,} prompts, the longest of {self.longest:,} tokens (limit {self.limit:,})"
        long = self.dropped + self.truncated
        if not long:
            return told
        names = ", ".join(self.first_long) + (", ..." if long > len(self.first_long) else "")
        return f"{told}; {long:,} too long and {'dropped' if self.dropped else 'truncated'}: {names}"


@dataclass(frozen=True, slots=True)
class Fitted:
    """The problems that are kept, their prompts' token ids in the same order, and what happened to the others."""

    problems: tuple[Problem, ...]
    prompt_ids: tuple[tuple[int, ...], ...]
    report: FitReport


def fit(
    problems: Sequence[Problem],
    tokenizer: PreTrainedTokenizerBase,
    *,
    limit: int | Room,
    policy: LongPrompts = "drop",
    style: PromptStyle = "auto",
    system_prompt: str | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    variables: Mapping[str, Any] | None = None,
) -> Fitted:
    """Render all prompts and apply the policy. `limit` is what the setting or the model's context leaves a prompt.

    Example: `fit(task.train, tokenizer, limit=512, policy="drop", system_prompt=task.system_prompt)`
    """
    limit = (room := limit if isinstance(limit, Room) else Room(limit)).tokens
    if limit < 1:
        raise TaskError(
            f"there is no room for prompts, {max(limit, 0)} tokens{f' ({room.why})' if room.why else ''}: the model's "
            "context has to hold a prompt and sampling.max_new_tokens, so lower that"
        )
    look: dict[str, Any] = {"style": style, "system_prompt": system_prompt, "tools": tools, "variables": variables}
    rendered = [_rendered(problem, tokenizer, look) for problem in problems]
    long = [problem.id for problem, ids in zip(problems, rendered, strict=True) if len(ids) > limit]
    longest = max(map(len, rendered), default=0)
    if long and policy == "error":
        raise TaskError(
            f"{len(long)} of {len(problems)} prompts have more than {room}, the longest {longest:,}: "
            f"{', '.join(long[:_SHOWN])}. Raise task.max_prompt_tokens as far as the model's context allows, lower "
            "sampling.max_new_tokens, or set task.long_prompts to 'drop' or 'truncate'"
        )
    if policy == "truncate":
        kept = [(problem, _cut(ids, limit, tokenizer)) for problem, ids in zip(problems, rendered, strict=True)]
    else:
        kept = [(problem, ids) for problem, ids in zip(problems, rendered, strict=True) if len(ids) <= limit]
    if problems and not kept:
        raise TaskError(
            f"all {len(problems)} prompts have more than {room} and were dropped; the shortest has "
            f"{min(map(len, rendered)):,} tokens: raise task.max_prompt_tokens, lower sampling.max_new_tokens, or set "
            "task.long_prompts = 'truncate'"
        )
    report = FitReport(
        problems=len(problems),
        limit=limit,
        longest=longest,
        dropped=len(problems) - len(kept),
        truncated=len(long) if policy == "truncate" else 0,
        first_long=tuple(long[:_SHOWN]),
    )
    return Fitted(tuple(problem for problem, _ in kept), tuple(ids for _, ids in kept), report)


def merged(pieces: Sequence[Fitted], order: Sequence[Problem]) -> Fitted:
    """Several tasks' prompts as one, problems in the given order."""
    if len(pieces) == 1:
        return pieces[0]
    ids = {p.id: i for piece in pieces for p, i in zip(piece.problems, piece.prompt_ids, strict=True)}
    kept = [problem for problem in order if problem.id in ids]
    reports = [piece.report for piece in pieces]
    report = FitReport(
        problems=sum(one.problems for one in reports),
        limit=reports[0].limit,
        longest=max(one.longest for one in reports),
        dropped=sum(one.dropped for one in reports),
        truncated=sum(one.truncated for one in reports),
        first_long=tuple(name for one in reports for name in one.first_long)[:_SHOWN],
    )
    return Fitted(tuple(kept), tuple(ids[problem.id] for problem in kept), report)


def shown(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """A prompt as the model reads it, special tokens and all.

    Example: `shown(fitted.prompt_ids[0], tokenizer)` -> `"<|im_start|>user\\n2+2=?<|im_end|>..."`
    """
    untyped: Any = tokenizer
    return str(untyped.decode(list(ids), skip_special_tokens=False))


def _rendered(problem: Problem, tokenizer: PreTrainedTokenizerBase, look: Mapping[str, Any]) -> tuple[int, ...]:
    try:
        ids = render(problem.prompt, tokenizer, **look)
    except TaskError as error:
        raise TaskError(f"{problem.id}: {error}") from error
    if not ids:
        raise TaskError(
            f"{problem.id}: its prompt has no tokens: this model's tokenizer knows none of its characters, or the chat "
            f"template leaves it out: {problem.prompt!r:.80}. Remove the row, take a model that reads it, or set "
            "task.prompt_style = 'plain'"
        )
    return ids


def _cut(ids: tuple[int, ...], limit: int, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    if len(ids) <= limit:
        return ids
    # A model that was trained with BOS in front of every text goes astray without it.
    if ids[0] == tokenizer.bos_token_id and limit > 1:
        return (ids[0], *ids[-(limit - 1) :])
    return ids[-limit:]
