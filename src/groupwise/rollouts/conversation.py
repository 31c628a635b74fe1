"""Conversations: the model and an environment in turn, until it is over or a limit is reached.

    prompt (trunk)         | turn drawn | reply | turn drawn | ...      (branch)
    own                      T T T T      F F F   T T T

Every turn is completed from the very ids that stand so far, so what the learner reads is what was sampled. The branch
of a rollout is all that follows the trunk; only what the model drew is trained on (`Completion.own`).
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from groupwise.engines.engine import Engine
from groupwise.errors import EngineError, TaskError
from groupwise.rollouts.dialogue import Dialogue
from groupwise.tasks.environments import Environment, Hosted, Reply, ToolBox, World, as_failure, clean
from groupwise.types import Completion, FinishReason, Group, Message, Problem, Prompt, Rollout, Sampling


@dataclass(frozen=True, slots=True)
class Limits:
    """Turns of the model, tokens of one turn (None: as many as are left), tokens that a reply may have, seconds that an
    environment may take for one answer, and the model's context."""

    turns: int = 8
    turn_tokens: int | None = None
    reply_tokens: int = 2048
    seconds: float = 60.0
    context: int = 1 << 30


@dataclass(slots=True)
class _Branch:
    """One conversation on its way. No environment: it could not be made."""

    environment: Environment | None
    prompt_ids: tuple[int, ...]
    seed: int
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    own: tuple[bool, ...] = ()
    messages: tuple[Message, ...] = ()
    turns: int = 0
    earned: float | None = None
    finish_reason: FinishReason = "stop"
    failure: str = ""

    def take(self, drawn: Completion) -> None:
        """The model's turn."""
        self.turns += 1
        self.token_ids += drawn.token_ids
        self.logprobs += drawn.logprobs
        self.own += (True,) * len(drawn.token_ids)
        self.messages += ({"role": "assistant", "content": drawn.text},)
        self.finish_reason = drawn.finish_reason

    def hear(self, reply: Reply, ids: tuple[int, ...]) -> None:
        """The environment's."""
        self.token_ids += ids
        self.logprobs += (0.0,) * len(ids)
        self.own += (False,) * len(ids)
        self.messages += reply.messages

    def completion(self, trunk: int, world: World) -> Completion:
        """What became of it. What the prompt has beyond the trunk of the group is the environment's, too."""
        beyond = self.prompt_ids[trunk:]
        said = [str(message["content"]) for message in self.messages if message["role"] == "assistant"]
        return Completion(
            token_ids=beyond + self.token_ids,
            logprobs=(0.0,) * len(beyond) + self.logprobs,
            finish_reason=self.finish_reason,
            text="\n".join(said),
            own=(False,) * len(beyond) + self.own,
            messages=self.messages,
            earned=self.earned,
            failure=self.failure,
            environment=None if world.shown is None or self.environment is None else world.shown(self.environment),
        )


@dataclass(frozen=True, slots=True)
class Conversations:
    """Who holds the conversations of a run. Example: `await conversations.group(problem, sampling, seeds)`"""

    engine: Engine
    world: World
    dialogue: Dialogue
    limits: Limits = Limits()

    async def group(self, problem: Problem, sampling: Sampling, seeds: Sequence[int]) -> Group:
        """A conversation for each seed, each with an environment of its own. The trunk is what their prompts share."""
        branches = await asyncio.gather(*(self._begun(problem, seed) for seed in seeds))
        alike: dict[tuple[int, ...], list[_Branch]] = {}
        for branch in branches:
            if not branch.failure:
                alike.setdefault(branch.prompt_ids, []).append(branch)
        await asyncio.gather(*(self._together(ids, some, sampling) for ids, some in alike.items()))
        trunk = shared_start([branch.prompt_ids for branch in branches])
        rollouts = tuple(Rollout(branch.completion(trunk, self.world)) for branch in branches)
        return Group(problem, branches[0].prompt_ids[:trunk], rollouts)

    async def _begun(self, problem: Problem, seed: int) -> _Branch:
        prompt = problem.prompt
        branch = _Branch(None, self.dialogue.prompt_ids(prompt), seed)
        # Whoever runs out of turns or tokens has earned what there was until then, and be it nothing.
        branch.earned = 0.0 if self.world.earns else None
        doing = "__init__"
        try:
            branch.environment = environment = await as_failure(self._made())
            doing = "reset"
            if isinstance(environment, ToolBox):
                environment.seconds = 0.9 * self.limits.seconds
            said = await asyncio.wait_for(as_failure(environment.reset(problem)), self.limits.seconds)
            if said is not None:
                branch.prompt_ids = self._prompt_ids(_with(prompt, said))
        except Exception as error:  # whatever an environment raises: nobody's answer is to blame
            branch.failure = f"{self.world.name}.{doing}: {_told(error)}"
        return branch

    async def _made(self) -> Environment:
        return self.world.make()

    def _prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """Of a prompt with what a reset said in it, which nobody has measured before."""
        ids = self.dialogue.prompt_ids(prompt)
        if len(ids) >= self.limits.context:
            raise TaskError(
                f"with what it said the prompt has {len(ids):,} tokens, and the model's context is "
                f"{self.limits.context:,}: let it say less"
            )
        return ids

    async def _together(self, prompt_ids: tuple[int, ...], branches: Sequence[_Branch], sampling: Sampling) -> None:
        """Conversations that begin alike: their prompt is read once for all first turns."""
        room = min(sampling.max_new_tokens, self.limits.context - len(prompt_ids))
        if room < 1:
            raise EngineError(
                f"a prompt of {len(prompt_ids)} tokens leaves no room for a turn: see task.max_prompt_tokens"
            )
        turn = replace(sampling, max_new_tokens=min(room, self.limits.turn_tokens or room))
        first = await self.engine.sample(prompt_ids, len(branches), turn, [branch.seed for branch in branches])
        pairs = zip(branches, first, strict=True)
        await asyncio.gather(*(self._held(branch, drawn, room, sampling) for branch, drawn in pairs))

    async def _held(self, branch: _Branch, drawn: Completion, room: int, sampling: Sampling) -> None:
        """Turn after turn, from the first one that was drawn. `room` is for all tokens behind the prompt."""
        while True:
            branch.take(drawn)
            reply = await self._answered(branch, drawn)
            if reply is None or reply.done or branch.turns >= self.limits.turns:
                break
            reply_ids = self._reply_ids(reply.messages, drawn.token_ids)
            left = room - len(branch.token_ids) - len(reply_ids)
            if left < 1:
                branch.finish_reason = "length"
                break
            branch.hear(reply, reply_ids)
            turn = replace(sampling, max_new_tokens=min(left, self.limits.turn_tokens or left))
            ids, seed = branch.prompt_ids + branch.token_ids, _turn_seed(branch.seed, branch.turns)
            (drawn,) = await self.engine.sample(ids, 1, turn, [seed])
        await self._paid(branch)

    def _reply_ids(self, messages: Sequence[Message], drawn: Sequence[int]) -> tuple[int, ...]:
        """The reply's ids; what is too long in it is cut, and never what the template writes around it."""
        ids = self.dialogue.reply_ids(messages, drawn)
        while len(ids) > self.limits.reply_tokens and any(message["content"] for message in messages):
            share = 0.9 * self.limits.reply_tokens / len(ids)
            messages = [{**m, "content": str(m["content"])[: int(len(str(m["content"])) * share)]} for m in messages]
            ids = self.dialogue.reply_ids(messages, drawn)
        return ids

    async def _answered(self, branch: _Branch, drawn: Completion) -> Reply | None:
        """The environment's answer; None where there is nothing to answer, or nobody."""
        if drawn.finish_reason != "stop" or branch.environment is None:
            return None  # a turn that was cut off says nothing
        try:
            reply = await asyncio.wait_for(as_failure(branch.environment.step(drawn.text)), self.limits.seconds)
            reply = _checked(reply)
        except Exception as error:  # as above
            branch.failure = f"{self.world.name}.step: {_told(error)}"
            return None
        if reply.reward is not None:
            branch.earned = (branch.earned or 0.0) + reply.reward
        return reply

    async def _paid(self, branch: _Branch) -> None:
        """The reward for the whole conversation, where the environment gives one."""
        if isinstance(branch.environment, Hosted) and not branch.failure:
            try:
                branch.earned = await asyncio.wait_for(as_failure(branch.environment.reward()), self.limits.seconds)
            except Exception as error:  # as above
                branch.failure = f"{self.world.name}.get_reward: {_told(error)}"


def _checked(reply: object) -> Reply:
    """The reply as it is declared, whatever was put into it; no half characters, which no tokenizer takes."""
    if not isinstance(reply, Reply):
        raise TypeError(f"step returned a {type(reply).__name__}, not a Reply")
    reward = None if reply.reward is None else _number(reply.reward)
    return Reply(tuple(map(_message, cast("Sequence[object]", reply.messages))), bool(reply.done), reward)


def _number(reward: object) -> float:
    """A reward as a number. Tensors and numpy's scalars are ones, a text is none."""
    number = float("nan") if isinstance(reward, str | bytes) else float(cast(Any, reward))
    if not math.isfinite(number):
        raise ValueError(f"the reward of a Reply is {ascii(reward)[:80]}, which is no finite number")
    return number


def _message(message: object) -> Message:
    if not isinstance(message, Mapping):
        raise TypeError(f"a message of a Reply is a {type(message).__name__}: it is a dict with a role and a content")
    named = cast("Mapping[str, Any]", message)
    if missing := [part for part in ("role", "content") if named.get(part) is None]:
        raise ValueError(f"a message of a Reply has no {missing[0]!r}")
    return {**named, "role": str(named["role"]), "content": clean(str(named["content"]), None)}


def _turn_seed(seed: int, turn: int) -> int:
    """A conversation of one turn draws what a completion draws."""
    if turn == 0:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{turn}".encode(), digest_size=8).digest(), "big")


def _with(prompt: Prompt, said: str) -> Prompt:
    """The prompt with an observation at the end of its last message."""
    if isinstance(prompt, str):
        return prompt + said
    return (*prompt[:-1], {**prompt[-1], "content": f"{prompt[-1]['content']}{said}"})


def shared_start(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many ids all prompts begin with; at least one of each is left to be drawn from.

    Example: (1, 2, 3), (1, 2, 4) -> 2
    """
    first = prompts[0]
    for place, token in enumerate(first):
        if any(len(prompt) <= place or prompt[place] != token for prompt in prompts):
            return place
    return len(first)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")[:300]
