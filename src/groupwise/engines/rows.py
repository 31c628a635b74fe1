"""The completions that an engine is working on, as tensors: one entry per row, one host synchronisation per token."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from groupwise.engines.sampler import draw, uniforms
from groupwise.types import Completion, Sampling

_GROWTH = 64


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


class Rows:
    """The rows in flight, in the order of the decoder's.

    A finished row stays (and is computed in vain) until `keep` drops it: dropping costs a copy, so it is worth it only
    for several rows at once.
    """

    def __init__(
        self, device: torch.device, dtype: torch.dtype, tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]
    ) -> None:
        self._device = device
        self._tokenizer = tokenizer
        self._ends = ends
        self.entries: list[tuple[Request, int]] = []
        """Request and branch of each row."""
        self.finished = self._integers([]).bool()
        self._told = torch.zeros(0, dtype=torch.bool)
        self._seeds, self._limits, self._counts = (self._integers([]) for _ in range(3))
        self._tokens = torch.zeros(0, _GROWTH, dtype=torch.long, device=device)
        self._logprobs = torch.zeros(0, _GROWTH, dtype=dtype, device=device)
        self._seen: Tensor | None = None

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def last_tokens(self) -> Tensor:
        """The newest token of each row."""
        return self._tokens.gather(1, (self._counts - 1)[:, None])[:, 0]

    def add(self, request: Request) -> None:
        """One row for each completion that the request wants."""
        n = len(request.seeds)
        self.entries += [(request, branch) for branch in range(n)]
        wrapped = [seed - (1 << 64) if seed >= 1 << 63 else seed for seed in request.seeds]
        self._seeds = torch.cat([self._seeds, self._integers(wrapped)])
        self._limits = torch.cat([self._limits, self._integers([request.limit] * n)])
        self._counts = torch.cat([self._counts, self._integers([0] * n)])
        self.finished = torch.cat([self.finished, self._integers([0] * n).bool()])
        self._told = torch.cat([self._told, torch.zeros(n, dtype=torch.bool)])
        self._tokens = torch.cat([self._tokens, self._tokens.new_zeros(n, self._tokens.shape[1])])
        self._logprobs = torch.cat([self._logprobs, self._logprobs.new_zeros(n, self._logprobs.shape[1])])
        if self._seen is not None:
            self._seen = torch.cat([self._seen, self._mentioned(len(self._seen), self._seen.shape[1])])

    def draw(self, logits: Tensor, first: int = 0) -> None:
        """Draw the next token of every row from `first` on: `logits` [rows, V]."""
        if int(self._tokens.shape[1]) <= int(self._limits.max()) and bool(
            (self._counts >= self._tokens.shape[1]).any()
        ):
            self._tokens = torch.cat([self._tokens, torch.zeros_like(self._tokens)], 1)
            self._logprobs = torch.cat([self._logprobs, torch.zeros_like(self._logprobs)], 1)
        for sampling, index in self._by_sampling(first):
            self._draw(logits[index - first], index, sampling)

    def newly_finished(self) -> list[tuple[Request, int, Completion]]:
        """Completions that ended since the last call. The one host synchronisation of a token."""
        finished = self.finished.cpu().clone()
        fresh = (finished & ~self._told).nonzero()[:, 0].tolist()
        self._told = finished
        return [(*self.entries[i], self._completion(i)) for i in fresh]

    def abandon(self) -> None:
        """End the rows that nobody waits for any more."""
        if gone := [i for i, (request, _) in enumerate(self.entries) if request.done.cancelled()]:
            self.finished[gone] = True
            self._told[gone] = True

    def alive(self) -> Tensor:
        """Index of the rows that are not finished."""
        return (~self.finished).nonzero()[:, 0]

    def keep(self, index: Tensor) -> None:
        """Drop all other rows."""
        self.entries = [self.entries[i] for i in index.tolist()]
        self._seeds, self._limits, self._counts = self._seeds[index], self._limits[index], self._counts[index]
        self._tokens, self._logprobs = self._tokens[index], self._logprobs[index]
        self.finished, self._told = self.finished[index], self._told[index.cpu()]
        self._seen = None if self._seen is None else self._seen[index]

    def _draw(self, logits: Tensor, index: Tensor, sampling: Sampling) -> None:
        numbers = uniforms(self._seeds[index], self._counts[index])
        seen = self._seen_tokens(index, logits.shape[-1]) if sampling.repetition_penalty != 1 else None
        tokens, logprobs = draw(logits, numbers, sampling, seen)
        open_rows = ~self.finished[index]
        index, tokens, logprobs = index[open_rows], tokens[open_rows], logprobs[open_rows]
        places = self._counts[index]
        self._tokens[index, places] = tokens
        self._logprobs[index, places] = logprobs
        self._counts[index] = places + 1
        if self._seen is not None:
            self._seen[index, tokens] = True
        ends = self._integers(sorted(self._ends | set(sampling.stop_token_ids)))
        self.finished[index] = torch.isin(tokens, ends) | (places + 1 >= self._limits[index])
        if sampling.stop:
            self._look_for(sampling.stop, index)

    def _by_sampling(self, first: int) -> list[tuple[Sampling, Tensor]]:
        groups: dict[Sampling, list[int]] = {}
        for i in range(first, len(self.entries)):
            groups.setdefault(self.entries[i][0].sampling, []).append(i)
        return [(sampling, self._integers(rows)) for sampling, rows in groups.items()]

    def _seen_tokens(self, index: Tensor, vocabulary: int) -> Tensor:
        """[rows, V] tokens of the prompt and of the completion so far; kept only when a penalty asks for it."""
        if self._seen is None:
            self._seen = self._mentioned(0, vocabulary)
        return self._seen[index]

    def _mentioned(self, first: int, vocabulary: int) -> Tensor:
        """[rows, V] what stands in the prompt, and so far in the completion, of the rows from `first` on."""
        mentioned = torch.zeros(len(self.entries) - first, vocabulary, dtype=torch.bool, device=self._device)
        for row, (request, _) in enumerate(self.entries[first:]):
            count = int(self._counts[first + row])
            mentioned[row, self._integers(request.prompt_ids)] = True
            mentioned[row, self._tokens[first + row, :count]] = True
        return mentioned

    def _look_for(self, stops: Sequence[str], index: Tensor) -> None:
        """End the rows whose text now holds a stop string."""
        # Every token holds at least one byte, so a stop string lies within as many last tokens as it has bytes.
        reach = max(len(stop.encode()) for stop in stops) + 4
        for i in index.tolist():
            count = int(self._counts[i])
            tail = self._decode(self._tokens[i, max(count - reach, 0) : count].tolist())
            if any(stop in tail for stop in stops):
                self.finished[i] = True

    def _completion(self, i: int) -> Completion:
        request, _ = self.entries[i]
        count = int(self._counts[i])
        token_ids = self._tokens[i, :count].tolist()
        text = self._decode(token_ids)
        stopped = count < request.limit or token_ids[-1] in self._ends | set(request.sampling.stop_token_ids)
        if cuts := [place for stop in request.sampling.stop if (place := text.find(stop)) >= 0]:
            text, stopped = text[: min(cuts)], True
        logprobs = self._logprobs[i, :count].tolist()
        return Completion(tuple(token_ids), tuple(logprobs), "stop" if stopped else "length", text)

    def _decode(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=True))

    def _integers(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)
