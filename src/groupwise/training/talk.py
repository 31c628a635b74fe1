"""Who holds the conversations of a run whose task, or some part of it, has an environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from groupwise.engines.engine import Engine
from groupwise.rollouts.conversation import Conversations, Limits
from groupwise.rollouts.dialogue import Dialogue
from groupwise.tasks import World, with_tools, world_of
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
            Dialogue(
                parts.policy.tokenizer,
                recipe.task.prompt_style,
                one.system_prompt,
                one.environment.tools,
                recipe.task.template_variables,
            ),
            limits,
        )
        for name, one in (task.parts or {"": task}).items()
        if one.environment is not None
    }


def given_world(tools: Sequence[Callable[..., Any]], environment: Callable[[], Any] | None) -> World | None:
    """The world of what a program hands over; None if that is nothing."""
    if environment is not None:
        return world_of(environment, tools)
    return with_tools(tools) if tools else None


def with_world(settings: Mapping[str, Any], world: World | None) -> Mapping[str, Any]:
    """The settings, and in them what the recipe of the run says of a world that only the program knows."""
    return settings if world is None else {**settings, "task.environment": f"(in memory) {world.name}"}
