"""Who holds the conversations of a run whose task, or some part of it, has an environment."""

from __future__ import annotations

from groupwise.engines.engine import Engine
from groupwise.rollouts.conversation import Conversations, Limits
from groupwise.rollouts.dialogue import Dialogue
from groupwise.training.build import Parts


def conversations_of(parts: Parts, engine: Engine) -> dict[str, Conversations]:
    """By `Problem.task`; a task without an environment has none."""
    recipe, task = parts.recipe, parts.task
    turns = recipe.turns
    limits = Limits(turns.limit, turns.tokens, turns.reply_tokens, turns.seconds, parts.policy.context)
    return {
        name: Conversations(
            engine,
            one.environment,
            Dialogue(parts.policy.tokenizer, recipe.task.prompt_style, one.system_prompt, one.environment.tools),
            limits,
        )
        for name, one in (task.parts or {"": task}).items()
        if one.environment is not None
    }
