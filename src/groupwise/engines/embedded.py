"""The engine inside the trainer: it samples with the policy's own parameters, so there is nothing to synchronise.

Groups wait in a queue; as rows finish, the next group joins (continuous batching). Whoever awaits a `sample` gets the
whole group at once. All callers share one loop on the event loop, one token for every row at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from groupwise.engines.decoders import Decoder, PlainDecoder, TrunkAndBranchDecoder
from groupwise.engines.rows import Request, Rows
from groupwise.errors import EngineError
from groupwise.models.policy import Policy
from groupwise.types import Completion, Sampling


class EmbeddedEngine:
    """Samples from a `Policy`.

    Example:

        engine = EmbeddedEngine(policy, max_rows=256)
        groups = await asyncio.gather(*(engine.sample(p, 8, Sampling(), range(8)) for p in prompts))
    """

    def __init__(self, policy: Policy, max_rows: int = 256) -> None:
        self._policy = policy
        self._max_rows = max_rows
        self._ends = end_tokens(policy)
        self._waiting: list[Request] = []
        self._unanswered: list[Request] = []
        self._rows = Rows(policy.device, policy.tokenizer, self._ends)
        self._decoder: Decoder = PlainDecoder(policy)
        self._loop: asyncio.Task[None] | None = None
        self.tokens_sampled = 0
        """Tokens drawn so far."""

    @property
    def exact(self) -> bool:
        """In fp32 its logprobs are the learner's to 1e-5; in 16 bits the two round differently."""
        return self._policy.dtype in (torch.float32, torch.float64)

    async def sample(
        self, prompt_ids: Sequence[int], n: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """See `Engine`. More completions than rows are drawn in several goes."""
        assert len(seeds) == n
        room = self._policy.context - len(prompt_ids)
        if not prompt_ids or room < 1:
            raise EngineError(
                f"a prompt of {len(prompt_ids)} tokens cannot be completed: the model's context is "
                f"{self._policy.context} tokens and a prompt needs at least one. See task.max_prompt_tokens."
            )
        limit = min(sampling.max_new_tokens, room)
        pieces = [tuple(seeds[i : i + self._max_rows]) for i in range(0, n, self._max_rows)]
        futures = [asyncio.get_running_loop().create_future() for _ in pieces]
        for piece, future in zip(pieces, futures, strict=True):
            self._waiting.append(Request(tuple(prompt_ids), sampling, piece, limit, future))
        self._unanswered += self._waiting[-len(pieces) :]
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._run())
        return [completion for group in await asyncio.gather(*futures) for completion in group]

    async def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Nothing to load: the parameters are the policy's own. They must not change under a rollout, though."""
        if self._waiting or len(self._rows):
            raise AssertionError("the weights changed while rollouts were in flight")

    async def _run(self) -> None:
        """Until nobody waits. An error reaches everybody who does."""
        # Let all callers that are starting together queue up, so that their prompts are read in one pass.
        await asyncio.sleep(0)
        try:
            self._start()
            while self._waiting or len(self._rows):
                with torch.inference_mode():
                    self._admit()
                    self._retire()
                    if len(self._rows):
                        self._rows.draw(self._decoder.step(self._rows.last_tokens))
                        self._retire()
                await asyncio.sleep(0)
        except Exception as error:
            self._waiting = []
            self._rows = Rows(self._policy.device, self._policy.tokenizer, self._ends)
            for request in self._unanswered:
                if not request.done.done():
                    request.done.set_exception(error)
        finally:
            self._unanswered = []

    def _start(self) -> None:
        trunk_and_branch = self._policy.attention == "trunk_and_branch"
        self._decoder = TrunkAndBranchDecoder(self._policy) if trunk_and_branch else PlainDecoder(self._policy)
        self._rows = Rows(self._policy.device, self._policy.tokenizer, self._ends)

    def _admit(self) -> None:
        free = self._max_rows - len(self._rows)
        fitting = 0
        while fitting < len(self._waiting) and len(self._waiting[fitting].seeds) <= free:
            free -= len(self._waiting[fitting].seeds)
            fitting += 1
        fitting = self._decoder.admissible([len(r.prompt_ids) for r in self._waiting[:fitting]], len(self._rows) > 0)
        if not fitting:
            return
        joining, self._waiting = self._waiting[:fitting], self._waiting[fitting:]
        logits = self._decoder.admit([r.prompt_ids for r in joining], [len(r.seeds) for r in joining])
        first = len(self._rows)
        for request in joining:
            self._rows.add(request)
        self._rows.draw(logits, first)

    def _retire(self) -> None:
        """Answer for the finished rows, and drop them once that is worth the copy."""
        for request, branch, completion in self._rows.newly_finished():
            self.tokens_sampled += len(completion.token_ids)
            request.finish(branch, completion)
        finished = int(self._rows.finished.sum())
        if finished and (self._waiting or finished * 8 >= len(self._rows)):
            alive = self._rows.alive()
            self._rows.keep(alive)
            self._decoder.keep(alive)


def end_tokens(policy: Policy) -> frozenset[int]:
    """Every end token that the generation config, the config or the tokenizer knows."""
    named: list[Any] = [policy.model.config.eos_token_id, policy.tokenizer.eos_token_id]
    if policy.model.can_generate():
        named.append(policy.model.generation_config.eos_token_id)
    several = [ids if isinstance(ids, list | tuple) else [ids] for ids in named if ids is not None]
    return frozenset(int(token) for ids in several for token in cast("list[int]", ids))
