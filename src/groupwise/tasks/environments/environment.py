"""What a model can talk to: something that is reset to a problem and answers what the model says, turn by turn.

    class Guess:
        async def reset(self, problem: Problem) -> str | None:
            self.secret = problem.columns["secret"]
            return None                                   # or a text that ends the last user message

        async def step(self, said: str) -> Reply:
            if said.strip() == str(self.secret):
                return Reply(done=True, reward=1.0)
            return Reply.of("higher" if int(said) < self.secret else "lower")

One environment serves one completion. What it replies becomes context: attended to, and never trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from groupwise.types import Message, Problem


@dataclass(frozen=True, slots=True)
class Reply:
    """What an environment answers: messages for the model, whether the conversation is over, the turn's reward.

    `reward` None: this turn is not rewarded. The rewards of all turns are added up.
    """

    messages: tuple[Message, ...] = ()
    done: bool = False
    reward: float | None = None

    @classmethod
    def of(cls, text: str, *, role: str = "user", done: bool = False, reward: float | None = None) -> Reply:
        """One message. Example: `Reply.of("lower", reward=-0.1)`"""
        return cls(({"role": role, "content": text},), done, reward)


@runtime_checkable
class Environment(Protocol):
    """See above. Anything that a step raises ends the conversation, and its rollout has no grade: that is our failure,
    or the environment's, not the model's."""

    async def reset(self, problem: Problem) -> str | None:
        """Begin anew. A text is put at the end of the problem's last user message."""
        ...

    async def step(self, said: str) -> Reply:
        """Answer the model's turn."""
        ...


@dataclass(frozen=True, slots=True)
class World:
    """How a task's environments are made. `tools` are the JSON schemas that the prompt's template shows the model;
    `earns` says whether the environment gives rewards, under its `name`; `shown` is what reward functions by TRL's
    contract find in `environments`, where the user gave a class."""

    name: str
    make: Callable[[], Environment]
    tools: Sequence[Mapping[str, Any]] = ()
    earns: bool = True
    shown: Callable[[Environment], object] | None = None
