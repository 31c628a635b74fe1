"""Ratios: at which level the policy is compared with the one that began the update, by token or by whole completion.

Every entry turns the log ratios of single tokens, `log pi - log pi_old`, into the log ratio that a surrogate sees. They
combine with every surrogate: `sequence` under `clipped_ratio` is GSPO, under `sapo` a sequence-level SAPO.
"""

from __future__ import annotations

from torch import Tensor

from groupwise.maths.sequences import mean_of_rollout, sum_of_rollout
from groupwise.maths.tables import Table


def token(log_ratio_T: Tensor) -> Tensor:
    """Each token for itself, as in PPO (arXiv 1707.06347) and GRPO (arXiv 2402.03300).

    Example: log ratios [0.1, 0.3] of one completion stay [0.1, 0.3].
    """
    return log_ratio_T


def sequence(log_ratio_T: Tensor, rollout_T: Tensor) -> Tensor:
    """GSPO: the mean over the completion's tokens, so the ratio is the geometric mean, `(pi(o) / pi_old(o))^(1/|o|)`.
    All tokens share it, and its gradient reaches every one of them.

    Group Sequence Policy Optimization, arXiv 2507.18071. TRL's `importance_sampling_level="sequence"`.

    Example: log ratios [0.1, 0.3] of one completion become [0.2, 0.2].
    """
    return mean_of_rollout(log_ratio_T, rollout_T)


def sequence_token(log_ratio_T: Tensor, rollout_T: Tensor) -> Tensor:
    """GSPO-token: the value of the completion's ratio, the gradient of the token's own logprob. With one advantage for
    the whole completion its gradient is that of `sequence`; it is what verl calls gspo.

    Group Sequence Policy Optimization, arXiv 2507.18071.

    Example: log ratios [0.1, 0.3] of one completion become [0.2, 0.2].
    """
    return mean_of_rollout(log_ratio_T, rollout_T).detach() + (log_ratio_T - log_ratio_T.detach())


def product(log_ratio_T: Tensor, rollout_T: Tensor) -> Tensor:
    """The ratio of the whole completion, `pi(o) / pi_old(o)`: the sum of the log ratios, not divided by the length.

    RLOO, arXiv 2402.14740, where a completion is one action. TRL's `RLOOTrainer`.

    Example: log ratios [0.1, 0.3] of one completion become [0.4, 0.4].
    """
    return sum_of_rollout(log_ratio_T, rollout_T)


RATIOS: Table[Tensor] = Table(
    "ratio",
    {"token": token, "sequence": sequence, "sequence_token": sequence_token, "product": product},
    offers=("log_ratio_T", "rollout_T"),
)
