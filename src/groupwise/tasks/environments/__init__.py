"""Environments: what a model talks to over several turns. Tools are environments that answer calls.

environment   the protocol, reset and step, and what they exchange
tools         typed Python functions as tools
calls         tool calls in what a model wrote
patience      calling what others wrote: nothing it does ends the run
classes       a class of the user's as an environment, by our protocol or TRL's
"""

from groupwise.tasks.environments.classes import Hosted, world_of
from groupwise.tasks.environments.environment import Environment, Reply, World
from groupwise.tasks.environments.patience import as_failure
from groupwise.tasks.environments.tools import Tool, ToolBox, clean, with_tools

__all__ = [
    "Environment",
    "Hosted",
    "Reply",
    "Tool",
    "ToolBox",
    "World",
    "as_failure",
    "clean",
    "with_tools",
    "world_of",
]
