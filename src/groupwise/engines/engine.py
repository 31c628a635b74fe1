"""What an engine is: something that completes prompts, many at once, and says how likely each token was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from torch import Tensor

from groupwise.types import Completion, Sampling


class Engine(Protocol):
    """Engines are async, so that many groups, many turns and remote machines need no second interface.

    Example: `completions = await engine.sample(prompt_ids, n=8, sampling=Sampling(max_new_tokens=64), seeds=range(8))`
    """

    @property
    def exact(self) -> bool:
        """Whether its logprobs are those of the learner's own forward, up to rounding in fp32."""
        ...

    async def sample(
        self, prompt_ids: Sequence[int], n: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """`n` completions of one prompt. The i-th depends on the weights, the prompt and `seeds[i]` alone."""
        ...

    async def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Sample from these weights from now on."""
        ...
