"""A closer look at an update: every number that the learner's loss is made of, token by token, update by update."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from groupwise.learner.objective import Scores, Terms
from groupwise.learner.packing import MicroBatch
from groupwise.learner.report import UpdateReport
from groupwise.maths.sequences import cut_exp


@dataclass(frozen=True, slots=True)
class TokenLook:
    """One token in one update, as the loss saw it.

    `slope` is the surrogate's gradient with respect to the token's logprob: 0 where it was clipped.
    """

    old_logprob: float
    logprob: float
    ratio: float
    surrogate: float
    slope: float
    kl: float | None
    weight: float
    advantage: float


@dataclass(slots=True)
class UpdateLook:
    """One optimizer step: its tokens by their places in the batch, and what came of them."""

    tokens: dict[int, TokenLook] = field(default_factory=dict[int, TokenLook])
    loss: float = 0.0
    learning_rate: float = 0.0
    gradient_norm: float = 0.0


class LookingReport(UpdateReport):
    """The report of every update, which also keeps what it sees.

    Example: `learner.report_of = LookingReport`, and after an update `report.looks[0].tokens[3].ratio` is 1.0.
    """

    def __init__(self, *, sampler_is_exact: bool) -> None:
        super().__init__(sampler_is_exact=sampler_is_exact)
        self.looks: list[UpdateLook] = []
        self._look = UpdateLook()

    @torch.no_grad()
    def observe_tokens(self, terms: Terms, scores: Scores, batch: MicroBatch) -> None:
        """Note one micro-batch."""
        super().observe_tokens(terms, scores, batch)
        self._look.loss += float(terms.loss)
        columns = (
            scores.old_T,
            scores.logprobs_T,
            cut_exp(terms.log_ratio_T),
            terms.surrogate_T,
            terms.slope_T,
            terms.kl_T,
            batch.weights_T,
            batch.advantages_T,
        )
        rows = zip(*(_floats(column, len(batch.places_T)) for column in columns), strict=True)
        for place, row in zip(batch.places_T.tolist(), rows, strict=True):
            self._look.tokens[place] = TokenLook(*row)  # pyright: ignore[reportArgumentType] - only kl may be None

    def observe_step(self, learning_rate: float, gradient_norm: float) -> None:
        """Note one optimizer step."""
        super().observe_step(learning_rate, gradient_norm)
        self._look.learning_rate, self._look.gradient_norm = learning_rate, gradient_norm
        self.looks.append(self._look)
        self._look = UpdateLook()


def _floats(column: Tensor | None, length: int) -> list[float] | list[None]:
    return [None] * length if column is None else column.tolist()
