"""From features to logits: the model's last matrix, with the scale or cap that its architecture puts behind it.

The learner and the engine never ask the model for all its logits; they take the features of the tokens that matter
and apply this. Whether it equals the model's own is part of the self-check at load.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from groupwise.models.products import linear_of


@dataclass(frozen=True, slots=True)
class Head:
    """`head(features [..., hidden]) -> logits [..., vocabulary]`.

    Example: Gemma 2 caps, `30 * tanh(logits / 30)`; Cohere multiplies by `logit_scale`; Granite divides by
    `logits_scaling`.
    """

    projection: nn.Module
    scale: float = 1.0
    cap: float | None = None

    def __call__(self, features: Tensor) -> Tensor:
        """Logits in the precision of the projection."""
        logits = self._projected(features)
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap

    def _projected(self, features: Tensor) -> Tensor:
        own = vars(self.projection)
        # Of sampling, a large vocabulary is much; the learner goes by tiles.
        if not torch.is_grad_enabled() and not own["_forward_hooks"] and not own["_forward_pre_hooks"]:
            return (linear_of(self.projection) or self.projection)(features)
        return cast(Tensor, self.projection(features))

    @classmethod
    def of(cls, model: PreTrainedModel) -> Head:
        """Read what the architecture does behind its last matrix from its configuration."""
        settings = cast(Mapping[str, Any], model.config.get_text_config().to_dict())
        scale = _number(settings.get("logit_scale")) / _number(settings.get("logits_scaling"))
        cap = settings.get("final_logit_softcapping")
        return cls(cast(nn.Module, model.get_output_embeddings()), scale, None if cap is None else float(cap))


def _number(setting: Any) -> float:
    """A factor, or 1 where there is none or where the setting means something else."""
    return float(setting) if isinstance(setting, int | float) and setting else 1.0
