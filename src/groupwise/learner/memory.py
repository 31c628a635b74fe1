"""How large micro-batches are: as large as suits the device, and smaller once the memory does not suffice. The gradient
is the same, as the weights are by update.

limit = MicroBatchLimit(token_budget(recipe.learner, policy.device))
limit.halve([3900, 3100], [16, 12])     from now on micro-batches of up to 1,950 tokens; it is said once
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch

from groupwise.config.sections import LearnerSection
from groupwise.errors import LearnerError

log = logging.getLogger(__name__)

TOKENS, MEMORY = 2048, 16 << 30
"""So many tokens keep a CPU busy; a GPU wants more, and has room for them in proportion to its memory."""


def token_budget(section: LearnerSection, device: torch.device) -> int:
    """What the recipe says; if it says nothing, what suits the device.

    Example: 2,048 on a CPU and a GPU of 16 GB, 10,240 on one of 80 GB.
    """
    if section.token_budget is not None:
        return section.token_budget
    if device.type != "cuda":
        return TOKENS
    # Round numbers: two cards of one kind may tell their memory a little differently.
    return max(round(torch.cuda.get_device_properties(device).total_memory / MEMORY), 1) * TOKENS


class MicroBatchLimit:
    """How many tokens a micro-batch may have; halved whenever the memory did not suffice, for the rest of the run."""

    def __init__(self, tokens: int, say: Callable[[str], None] = log.warning) -> None:
        self.tokens = tokens
        self.say = say
        """Who hears that it was halved."""

    def halve(self, sizes: Sequence[int], branches: Sequence[int]) -> None:
        """Half of the largest micro-batch that was tried. `sizes` are their tokens, `branches` their completions; an
        error if none of them can be cut any more."""
        if not branches or max(branches) <= 1:
            raise LearnerError(
                "out of memory in the backward pass of a single completion with its prompt: there is no smaller "
                "micro-batch. Ways out, the cheapest first: lower learner.logprob_chunk; set "
                "model.gradient_checkpointing = true; add [lora]; lower sampling.max_new_tokens or "
                "task.max_prompt_tokens; take a smaller model.id"
            )
        before, self.tokens = self.tokens, max(min(self.tokens, max(sizes)) // 2, 1)
        self.say(
            f"out of memory with micro-batches of up to {min(before, max(sizes)):,} tokens: the update is done again "
            f"with up to {self.tokens:,}, the gradient is the same. To begin with that: learner.token_budget = "
            f"{self.tokens}"
        )
