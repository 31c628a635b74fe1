"""The section about conversations: what a model may say and hear where its task has an environment or tools."""

from __future__ import annotations

from pydantic import Field

from groupwise.config.section import Section


class TurnsSection(Section):
    """Conversations with an environment or with tools. `sampling.max_new_tokens` counts all that follows the prompt."""

    limit: int = Field(default=8, ge=1)
    """Turns of the model, at most."""
    tokens: int | None = Field(default=None, ge=1)
    """Longest turn; unset: as long as there is room."""
    reply_tokens: int = Field(default=2048, ge=16)
    """Longest reply of the environment; what is longer is cut."""
    seconds: float = Field(default=60.0, gt=0)
    """How long an environment may take for one answer. After that its rollout has no grade."""
