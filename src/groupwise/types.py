"""The nouns of groupwise: frozen, stdlib only, and the only things that cross from room to room.

A **Problem** is put to the policy G times; what comes back are **Completions**; graded they are **Rollouts**;
a problem with its rollouts is a **Group**, and a group is never torn apart:

    Problem("p7", "2+2=?", {"answer": "4"})
      └─ Group
           ├─ trunk     prompt_ids  (17, 10, 17, 28, 30)
           └─ branches  rollouts    (Rollout(completion=..., reward=1.0, advantage=0.94), ...)

Axis letters used all over the code: `_Q` problems, `_G` rollouts of one group, `_R` rollouts of many groups in a row,
`_T` packed tokens. So `rewards_G` is a group's rewards and `logprobs_T` one number per packed token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Message: TypeAlias = Mapping[str, Any]
"""A chat message, `{"role": "user", "content": "..."}`."""

Prompt: TypeAlias = str | tuple[Message, ...]
"""Plain text, or a conversation that the tokenizer's chat template renders."""

FinishReason: TypeAlias = Literal["stop", "length", "loop"]
"""`stop`: an end token or a stop string. `length`: cut by the token limit. `loop`: cut as it went round in circles."""

Outcome: TypeAlias = Literal["scored", "wrong", "unknown", "ungraded"]
"""What grading came to. `scored`: by the reward functions. `wrong`: the answer itself ran into a limit (time, memory,
size, a violation), and scores like a wrong answer. `unknown`: our machinery failed, so there is no reward. `ungraded`:
no function grades it, or none did so far."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One row of a task: a prompt and whatever its rewards need to know (answer, ...).

    Example: `Problem(id="gsm8k/train/0", prompt="Natalia sold ...", columns={"answer": "72"})`
    """

    id: str
    prompt: Prompt
    columns: Mapping[str, Any] = field(default_factory=dict[str, Any])
    task: str = ""
    """In a run of several tasks, which one it belongs to."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an engine draws tokens.

    The logprob of a token is, everywhere in groupwise, `log_softmax(logits / temperature)` of that token in fp32 over
    the whole vocabulary: `top_p`, `top_k`, `min_p` and `repetition_penalty` change which tokens are drawn, never the
    number reported for them. `temperature = 0` takes the likeliest token and reports its logprob at temperature 1.
    """

    max_new_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    loop_tokens: int | None = None
    """Cut a completion whose last so many tokens are one phrase several times over."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine returned for one branch: the ids that were drawn (end token included) and their logprobs.

    `text` is without special tokens and without the stop string. `len(token_ids) == len(logprobs)` always.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    text: str
    own: tuple[bool, ...] = ()
    """In a conversation, which tokens the policy drew. The others are what an environment said: context that is
    attended to, with a logprob of 0 that means nothing, and never trained on. Empty: all are drawn."""
    messages: tuple[Message, ...] = ()
    """A conversation's turns, the model's and the environment's; `text` is then what the model said, turn by turn."""
    earned: float | None = None
    """What the environment gave for it, over all turns; None where it gives no rewards."""
    failure: str = ""
    """Why the environment failed. Such a completion has no grade."""
    environment: object = field(default=None, compare=False, repr=False)
    """The environment as the conversation left it."""
    columns: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False)
    """What whoever sampled it has to say of it, for reward functions."""

    @property
    def drawn(self) -> int:
        """How many tokens the policy drew."""
        return sum(self.own) if self.own else len(self.token_ids)

    @property
    def drawn_logprobs(self) -> tuple[float, ...]:
        """The logprobs of these."""
        return tuple(x for x, own in zip(self.logprobs, self.own, strict=True) if own) if self.own else self.logprobs


@dataclass(frozen=True, slots=True)
class Rollout:
    """A completion and its grade. `reward` is the weighted sum of the parts; `None` means that no function graded it
    or that its grade is unknown, and such a rollout takes no part in its group's mean, std or gradient. `why` says
    which limit was hit, or what failed. One that is `masked` counts in mean and std, and trains nothing."""

    completion: Completion
    reward_parts: Mapping[str, float | None] = field(default_factory=dict[str, float | None])
    reward: float | None = None
    advantage: float = 0.0
    outcome: Outcome = "ungraded"
    why: str = ""
    masked: bool = False

    @property
    def trains(self) -> bool:
        """Whether its tokens can be part of the loss."""
        return self.reward is not None and not self.masked

    @property
    def trained(self) -> int:
        """How many of its tokens can be part of the loss."""
        return self.completion.drawn if self.trains else 0


@dataclass(frozen=True, slots=True)
class Group:
    """A problem, its prompt's token ids (the trunk) and its G rollouts (the branches)."""

    problem: Problem
    prompt_ids: tuple[int, ...]
    rollouts: tuple[Rollout, ...]

    @property
    def rewards_G(self) -> list[float | None]:
        """The group's rewards, in branch order."""
        return [rollout.reward for rollout in self.rollouts]
