"""The engine inside the trainer: it samples with the policy's own parameters, so there is nothing to synchronise.

Groups wait in a queue; as rows finish, the next group joins (continuous batching). Whoever awaits a `sample` gets the
whole group at once. All callers share one loop on the event loop, one token for every row at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from groupwise.engines.choice import MakeDecoder, choose_decoder
from groupwise.engines.decoders import Decoder, PlainDecoder
from groupwise.engines.holding import Batch
from groupwise.engines.row_limit import RowLimit
from groupwise.engines.rows import Request, Rows
from groupwise.engines.sampler import check
from groupwise.errors import EngineError
from groupwise.models.lora import at_work
from groupwise.models.policy import Attention, Policy
from groupwise.models.precision import multiplies_exactly
from groupwise.models.scarce import is_out_of_memory
from groupwise.types import Completion, Sampling

_CHECK_EVERY = 8
"""Tokens between two looks at which rows have ended, on a device that computes ahead of the host."""


class _FewerRowsError(Exception):
    """The memory did not suffice: whoever waits asks again."""


class EmbeddedEngine:
    """Samples from a `Policy`.

    Example:

        engine = EmbeddedEngine(policy, max_rows=256)
        groups = await asyncio.gather(*(engine.sample(p, 8, Sampling(), range(8)) for p in prompts))
    """

    def __init__(self, policy: Policy, max_rows: int = 256) -> None:
        self._policy = policy
        self.limit = RowLimit(max_rows)
        """Completions decoded at once: what was asked for, or less once the memory did not suffice."""
        self._ends = end_tokens(policy)
        self._waiting: list[Request] = []
        self._rows = self._no_rows()
        self._proven: dict[Attention, MakeDecoder] = {}
        self._decoder: Decoder = PlainDecoder(policy)
        self._made_for: tuple[Any, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self.tokens_sampled = 0
        """Tokens drawn so far."""

    @property
    def exact(self) -> bool:
        """In fp32 its logprobs are the learner's to 1e-5; in 16 bits, and where fp32 is rounded to be multiplied, the
        two round differently."""
        dtype = self._policy.dtype
        return dtype == torch.float64 or (dtype == torch.float32 and multiplies_exactly(self._policy.device))

    async def sample(
        self, prompt_ids: Sequence[int], n: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """See `Engine`. More completions than rows are drawn in several goes, and again in more goes if the memory did
        not suffice: a completion is the same whoever shares its batch."""
        assert len(seeds) == n
        check(sampling)
        while True:
            try:
                return await self._sampled(prompt_ids, sampling, seeds)
            except _FewerRowsError:
                continue

    async def _sampled(self, prompt_ids: Sequence[int], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        room = self._policy.context - len(prompt_ids)
        if not prompt_ids:
            raise EngineError("an empty prompt cannot be completed: the first token is drawn after at least one")
        if room < 1:
            raise EngineError(
                f"a prompt of {len(prompt_ids)} tokens cannot be completed: the model's context is "
                f"{self._policy.context} tokens, completion included. See task.max_prompt_tokens."
            )
        limit = min(sampling.max_new_tokens, room)
        sampling = with_special_stops(sampling, self._policy.tokenizer)
        loop = asyncio.get_running_loop()
        rows = self.limit.rows
        pieces = [tuple(seeds[i : i + rows]) for i in range(0, len(seeds), rows)]
        futures = [loop.create_future() for _ in pieces]
        if self._task is not None and self._task.get_loop() is not loop:
            if not self._task.done() or self._waiting or len(self._rows):
                self._forget()  # that loop was left in the middle, and whoever waits in it waits in vain
            self._task = None
        for piece, future in zip(pieces, futures, strict=True):
            self._waiting.append(Request(tuple(prompt_ids), sampling, piece, limit, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return [completion for group in await asyncio.gather(*futures) for completion in group]

    async def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Nothing to load: the parameters are the policy's own. They must not change under a rollout, though."""
        if self._waiting or len(self._rows):
            raise AssertionError("the weights changed while rollouts were in flight")

    async def _run(self) -> None:
        """Until nobody waits. An error reaches everybody who does; if it is the memory, they ask again for fewer rows
        at a time."""
        again = False
        try:
            # Let all callers that are starting together queue up, so that their prompts are read in one pass.
            await asyncio.sleep(0)
            self._start()
            while self._waiting or len(self._rows):
                with torch.inference_mode():
                    self._admit()
                    self._retire()
                    if len(self._rows):
                        self._rows.draw(self._decoder.step(self._rows.last_tokens))
                        self._retire()
                await asyncio.sleep(0)
            self._decoder.rest()
        except Exception as error:
            again = is_out_of_memory(error) and self.limit.halve(self._in_flight())
            if not again:
                self._fail(_explained(error))
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            for request in self._forget():
                request.done.cancel()
            raise
        if again:  # not above: there the error still holds the memory
            self._decoder = PlainDecoder(self._policy)
            self._fail(_FewerRowsError())
            if self._policy.device.type == "cuda":
                torch.cuda.empty_cache()

    def keys_and_values(self, batch: Batch) -> int:
        """Bytes of such a batch, by the decoder that sampled last."""
        return self._decoder.holds(batch).keys_and_values

    def _in_flight(self) -> int:
        """Rows, or, if none was begun, those that would have been."""
        return len(self._rows) or min(self.limit.rows, sum(len(request.seeds) for request in self._waiting))

    def _fail(self, error: Exception) -> None:
        for request in self._forget():
            request.done.set_exception(error)

    def state(self) -> int | None:
        """What a run has learnt about the memory; see `RowLimit`."""
        return self.limit.state()

    def restore(self, state: int | None) -> None:
        """Go on with what it learnt."""
        self.limit.restore(state)

    def _forget(self) -> list[Request]:
        """Give everything up, so that nothing of it can come up again; returns the requests that were not answered."""
        unanswered = [request for request in [*self._waiting, *self._rows.requests] if not request.done.done()]
        self._waiting = []
        self._rows = self._no_rows()
        self._made_for = ()
        return unanswered

    def _no_rows(self) -> Rows:
        dtype = torch.promote_types(self._policy.dtype, torch.float32)
        check_every = 1 if self._policy.device.type == "cpu" else _CHECK_EVERY
        return Rows(self._policy.device, dtype, self._policy.tokenizer, self._ends, check_every=check_every)

    def _start(self) -> None:
        attention = self._policy.attention
        if attention not in self._proven:
            self._proven[attention] = choose_decoder(self._policy)
        # A decoder is kept from batch to batch with what it has recorded, as long as it is about the same tensors, and
        # these lie where they lay: a model that was moved, or converted, has the same parameters elsewhere.
        model = self._policy.model
        lie = ((x.data_ptr(), x.dtype) for x in chain(model.parameters(), model.buffers()))
        made_for = (attention, self._policy.head, *map(id, model.parameters()), *lie, *at_work(model))
        if made_for != self._made_for:
            self._decoder.rest()
            self._decoder, self._made_for = self._proven[attention](self._policy), made_for
        else:
            self._decoder.refresh()

    def _admit(self) -> None:
        free = self.limit.rows - len(self._rows)
        fitting = 0
        while fitting < len(self._waiting) and len(self._waiting[fitting].seeds) <= free:
            free -= len(self._waiting[fitting].seeds)
            fitting += 1
        fitting = self._decoder.admissible([len(r.prompt_ids) for r in self._waiting[:fitting]], len(self._rows) > 0)
        if not fitting:
            return
        first = len(self._rows)
        joining, self._waiting = self._waiting[:fitting], self._waiting[fitting:]
        for request in joining:
            self._rows.add(request)
        logits = self._decoder.admit([r.prompt_ids for r in joining], [len(r.seeds) for r in joining])
        self._rows.draw(logits, first)

    def _retire(self) -> None:
        """Answer for the finished rows, and drop them once that is worth the copy."""
        self._rows.abandon()
        for request, branch, completion in self._rows.newly_finished():
            self.tokens_sampled += len(completion.token_ids)
            request.finish(branch, completion)
        if (index := self._rows.worth_keeping(at_once=bool(self._waiting))) is not None:
            self._rows.keep(index)
            self._decoder.keep(index)


def _explained(error: Exception) -> Exception:
    if not is_out_of_memory(error):
        return error
    return EngineError(
        "out of memory while sampling a single completion: there are no fewer. Ways out, the cheapest first: lower "
        "sampling.max_new_tokens or task.max_prompt_tokens; take a smaller model.id"
    )


def with_special_stops(sampling: Sampling, tokenizer: PreTrainedTokenizerBase) -> Sampling:
    """A stop string that is a special token, such as `<|im_end|>`, never shows in the text: it stops as a token."""
    special = [stop for stop in sampling.stop if stop in tokenizer.all_special_tokens]
    if not special:
        return sampling
    ids = cast("list[int]", tokenizer.convert_tokens_to_ids(special))
    strings = tuple(stop for stop in sampling.stop if stop not in special)
    return replace(sampling, stop=strings, stop_token_ids=(*sampling.stop_token_ids, *ids))


def end_tokens(policy: Policy) -> frozenset[int]:
    """Every end token that the generation config, the config or the tokenizer knows."""
    named: list[Any] = [policy.model.config.eos_token_id, policy.tokenizer.eos_token_id]
    if policy.model.can_generate():
        named.append(policy.model.generation_config.eos_token_id)
    several = [ids if isinstance(ids, list | tuple) else [ids] for ids in named if ids is not None]
    return frozenset(int(token) for ids in several for token in cast("list[int]", ids))
