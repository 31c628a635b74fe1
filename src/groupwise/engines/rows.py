"""The completions that an engine is working on: one row each, a column of tokens drawn at a time for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from groupwise.engines import drawing
from groupwise.engines.loops import Loops
from groupwise.engines.sampler import draw, uniforms
from groupwise.models.transfer import on_device
from groupwise.types import Completion, FinishReason, Sampling

_ROOM = 64
"""Columns of tokens, and of random numbers, are made so many at a time."""
_NEVER = 1 << 60


@dataclass(slots=True)
class Request:
    """One call of `sample`: a prompt, how many completions of it, and who waits for them."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    seeds: tuple[int, ...]
    limit: int
    done: asyncio.Future[list[Completion]]
    completions: dict[int, Completion] = field(default_factory=dict[int, Completion])

    def finish(self, branch: int, completion: Completion) -> None:
        """Take one completion; the last one answers the caller."""
        self.completions[branch] = completion
        if len(self.completions) == len(self.seeds) and not self.done.done():
            self.done.set_result([self.completions[i] for i in range(len(self.seeds))])


@dataclass(slots=True)
class _Row:
    """One completion in the making."""

    request: Request
    branch: int
    start: int
    """Column of its first token."""
    finished: bool = False

    @property
    def limit(self) -> int:
        """The column behind the last that it may fill."""
        return self.start + self.request.limit


class Rows:
    """The rows in flight, in the order of the decoder's.

    A finished row stays (and is computed in vain) until `keep` drops it: dropping costs a copy, so it is worth it only
    for several rows at once.
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        tokenizer: PreTrainedTokenizerBase,
        ends: frozenset[int],
        *,
        check_every: int = 1,
    ) -> None:
        self._device = device
        self._tokenizer = tokenizer
        self._ends = ends
        self._check_every = check_every
        self._rows: list[_Row] = []
        self._columns = 0
        self._next_limit = _NEVER
        """Column at which a row reaches its limit."""
        self._ends_seen = 0
        self._may_have_ended = False
        """Some row, since the last look."""
        self._gone = 0
        """How many rows are finished."""
        self._tokens = torch.zeros(_ROOM, 0, dtype=torch.long, device=device)  # [columns, rows]
        self._logprobs = torch.zeros(_ROOM, 0, dtype=dtype, device=device)
        self._uniforms = torch.zeros(_ROOM, 0, device=device)
        self._seeds = self._integers([])
        self._ended_at = self._integers([])
        """Column of each row's first end token."""
        self._requests: list[Request] = []
        self._samplings: list[tuple[Sampling, Tensor, Tensor | None]] = []
        self._loops = Loops()
        self._seen: Tensor | None = None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def requests(self) -> list[Request]:
        """Each request that has a row."""
        return self._requests

    @property
    def last_tokens(self) -> Tensor:
        """The newest token of each row."""
        return self._tokens[self._columns - 1]

    def add(self, request: Request) -> None:
        """One row for each completion that the request wants."""
        n = len(request.seeds)
        start = max(self._columns - 1, 0)  # its first token is drawn beside the newest ones of the others
        self._rows += [_Row(request, branch, start) for branch in range(n)]
        wrapped = [seed - (1 << 64) if seed >= 1 << 63 else seed for seed in request.seeds]
        self._seeds = torch.cat([self._seeds, self._integers(wrapped)])
        self._ended_at = torch.cat([self._ended_at, self._integers([_NEVER] * n)])
        self._tokens, self._logprobs = (
            torch.cat([x, x.new_zeros(len(x), n)], 1) for x in (self._tokens, self._logprobs)
        )
        if self._seen is not None:
            self._seen = torch.cat([self._seen, self._mentioned(self._rows[-n:], self._seen.shape[1])])
        self._arrange()

    def draw(self, logits: Tensor, first: int = 0) -> None:
        """Draw the next token of every row from `first` on, or the first token of rows that have just been added:
        `logits` [rows, V]."""
        if first == 0:
            self._open_column()
        column = self._columns - 1
        numbers = self._uniforms[column % _ROOM]
        tokens_B, logprobs_B = self._tokens[column], self._logprobs[column]
        for sampling, ends, index in self._samplings:
            if index is None and drawing.fits(logits, sampling) and not sampling.stop:
                into = tokens_B[first:], logprobs_B[first:], self._ended_at[first:]
                given = logits, numbers[first:], sampling.temperature
                self._may_have_ended |= drawing.fill(*into, *given, ends=ends, column=column) > 0
            elif index is None:
                self._draw(logits, slice(first, None), (numbers, tokens_B, logprobs_B), sampling, ends)
            elif len(index := index[index >= first]):
                self._draw(logits[index - first], index, (numbers, tokens_B, logprobs_B), sampling, ends)
        if first == 0 and self._loops.may_cut:
            self._loops.cut(self._tokens, self._columns, self._ended_at)
            self._may_have_ended = True

    def newly_finished(self) -> list[tuple[Request, int, Completion]]:
        """Completions that ended since the last look. The one host synchronisation of a column, and where it is dear,
        of `check_every` columns: a row may then run on for some tokens, which nobody gets to see."""
        limit_reached = self._columns >= self._next_limit
        if not limit_reached and (not self._may_have_ended or self._columns % self._check_every):
            return []
        self._may_have_ended = False
        ends_seen = int((self._ended_at != _NEVER).sum())
        if not limit_reached and ends_seen == self._ends_seen:
            return []
        self._ends_seen = ends_seen
        fresh: list[tuple[Request, int, Completion]] = []
        for i, (row, ended_at) in enumerate(zip(self._rows, self._ended_at.tolist(), strict=True)):
            if not row.finished and (ended_at < self._columns or row.limit <= self._columns):
                row.finished = True
                self._gone += 1
                fresh.append((row.request, row.branch, self._completion(i)))
        self._next_limit = min((row.limit for row in self._rows if not row.finished), default=_NEVER)
        return fresh

    def abandon(self) -> None:
        """End the rows that nobody waits for any more."""
        if any(request.done.cancelled() for request in self._requests):
            for row in self._rows:
                row.finished = row.finished or row.request.done.cancelled()
            self._gone = sum(row.finished for row in self._rows)

    def worth_keeping(self, *, at_once: bool) -> list[int] | None:
        """The rows to go on with, if it is worth dropping others: those that are not finished, and as many that are as
        make a round number. What is prepared for one number of rows then serves again."""
        if not self._gone or not (at_once or self._gone * 8 >= len(self._rows)):
            return None
        alive = [i for i, row in enumerate(self._rows) if not row.finished]
        spare = 0 if at_once else -len(alive) % max(1 << len(alive).bit_length() >> 4, 1)
        fillers = [i for i, row in enumerate(self._rows) if row.finished][:spare]
        return sorted(alive + fillers)

    def keep(self, index: Sequence[int]) -> None:
        """Drop all other rows."""
        which = self._integers(index)
        self._rows = [self._rows[i] for i in index]
        first = min((row.start for row in self._rows), default=self._columns)
        for row in self._rows:
            row.start -= first
        self._columns -= first
        self._tokens, self._logprobs = (x[first:].index_select(1, which) for x in (self._tokens, self._logprobs))
        self._seeds, self._ended_at = self._seeds[which], self._ended_at[which]
        self._ended_at = torch.where(self._ended_at == _NEVER, _NEVER, self._ended_at - first)
        self._seen = None if self._seen is None else self._seen[which]
        self._ends_seen = -1
        self._arrange()

    def _open_column(self) -> None:
        if self._columns == len(self._tokens):
            self._tokens, self._logprobs = (
                torch.cat([x, x.new_zeros(max(len(x), _ROOM), x.shape[1])]) for x in (self._tokens, self._logprobs)
            )
        self._columns += 1
        if self._columns % _ROOM == 1:
            self._number()

    def _arrange(self) -> None:
        """What follows from which rows there are."""
        self._gone = sum(row.finished for row in self._rows)
        self._requests = list({id(row.request): row.request for row in self._rows}.values())
        self._next_limit = min((row.limit for row in self._rows if not row.finished), default=_NEVER)
        of: dict[Sampling, list[int]] = {}
        for i, row in enumerate(self._rows):
            of.setdefault(row.request.sampling, []).append(i)
        self._samplings = [
            (
                sampling,
                self._integers(sorted(self._ends | set(sampling.stop_token_ids))),
                None if len(of) == 1 else self._integers(index),
            )
            for sampling, index in of.items()
        ]
        self._loops = Loops([(row.start, row.request.sampling.loop_tokens) for row in self._rows], self._integers)
        self._number()

    def _number(self) -> None:
        """The random numbers of the columns around the newest: [columns, rows]."""
        base = max(self._columns - 1, 0) // _ROOM * _ROOM
        columns = torch.arange(base, base + _ROOM, device=self._device)[:, None]
        self._uniforms = uniforms(self._seeds[None], columns - self._integers([row.start for row in self._rows])[None])

    def _draw(
        self,
        logits: Tensor,
        index: Tensor | slice,
        into: tuple[Tensor, Tensor, Tensor],
        sampling: Sampling,
        ends: Tensor,
    ) -> None:
        numbers, tokens_B, logprobs_B = into
        seen = self._seen_tokens(logits.shape[-1])[index] if sampling.repetition_penalty != 1 else None
        tokens, logprobs = draw(logits, numbers[index], sampling, seen)
        tokens_B[index], logprobs_B[index] = tokens, logprobs
        if self._seen is not None:
            self._seen[torch.arange(len(self), device=self._device)[index], tokens] = True
        self._may_have_ended = True
        ended = torch.where((tokens[:, None] == ends).any(-1), self._columns - 1, _NEVER)
        self._ended_at[index] = torch.minimum(self._ended_at[index], ended)
        if sampling.stop:
            self._look_for(sampling.stop, range(len(self))[index] if isinstance(index, slice) else index.tolist())

    def _seen_tokens(self, vocabulary: int) -> Tensor:
        """[rows, V] tokens of the prompt and of the completion so far; kept only when a penalty asks for it."""
        if self._seen is None:
            self._seen = self._mentioned(self._rows, vocabulary)
        return self._seen

    def _mentioned(self, rows: Sequence[_Row], vocabulary: int) -> Tensor:
        """[rows, V] what stands in the prompt, and so far in the completion, of these rows, the last ones."""
        mentioned = torch.zeros(len(rows), vocabulary, dtype=torch.bool, device=self._device)
        for i, row in enumerate(rows):
            mentioned[i, self._integers(row.request.prompt_ids)] = True
            drawn = self._tokens[row.start : max(self._columns - 1, row.start), len(self) - len(rows) + i]
            mentioned[i, drawn] = True
        return mentioned

    def _look_for(self, stops: Sequence[str], index: Sequence[int]) -> None:
        """End the rows whose text now holds a stop string. One look at the newest tokens of all rows."""
        # Every token holds at least one byte, so a stop string lies within as many last tokens as it has bytes.
        reach = max(len(stop.encode()) for stop in stops) + 4
        first = max(self._columns - reach, 0)
        newest = self._tokens[first : self._columns].t().tolist()
        for i in (i for i in index if not self._rows[i].finished):
            tail = self._decode(newest[i][max(self._rows[i].start - first, 0) :])
            if any(stop in tail for stop in stops):
                self._ended_at[i] = self._ended_at[i].clamp(max=self._columns - 1)

    def _completion(self, i: int) -> Completion:
        row, request = self._rows[i], self._rows[i].request
        end = min(row.limit, int(self._ended_at[i]) + 1)
        token_ids = self._tokens[row.start : end, i].tolist()
        text = self._decode(token_ids)
        stopped = end < row.limit or token_ids[-1] in self._ends | set(request.sampling.stop_token_ids)
        if cuts := [place for stop in request.sampling.stop if (place := text.find(stop)) >= 0]:
            text, stopped = text[: min(cuts)], True
        logprobs = self._logprobs[row.start : end, i].tolist()
        reason: FinishReason = "stop" if stopped else "length"
        ended = bool(cuts) or token_ids[-1] in self._ends | set(request.sampling.stop_token_ids)
        if request.sampling.loop_tokens is not None and not ended and int(self._ended_at[i]) < row.limit:
            reason = "loop"  # nothing else ends a row there
        return Completion(tuple(token_ids), tuple(logprobs), reason, text)

    def _decode(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=True))

    def _integers(self, values: Sequence[int]) -> Tensor:
        return on_device(list(values), self._device, torch.long)
