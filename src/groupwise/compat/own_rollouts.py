"""`rollout_func`: a function of the script's that samples in place of the engine.

    def rollout(prompts, trainer):                    # every prompt stands there once for each of its completions
        ...
        return {"prompt_ids": [...], "completion_ids": [...], "logprobs": [...]}

`env_mask` (1 where the model drew the token) may be among them; whatever else is there goes to the reward functions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from groupwise.engines.embedded import end_tokens
from groupwise.errors import EngineError
from groupwise.models.policy import Policy
from groupwise.rollouts.conversation import shared_start
from groupwise.types import Completion, Group, Problem, Rollout

NEEDED = ("prompt_ids", "completion_ids", "logprobs")
_TOLD = {*NEEDED, "env_mask", "logprob_token_ids"}


class OwnRollouts:
    """Groups from such a function. `trainer` is what it is called with beside the prompts.

    Example: `await OwnRollouts(rollout, trainer, lambda: policy)(problems, 8)` are groups of 8.
    """

    def __init__(self, function: Callable[..., Any], trainer: object, policy: Callable[[], Policy]) -> None:
        self._function, self._trainer, self._policy = function, trainer, policy

    async def __call__(self, problems: Sequence[Problem], group_size: int) -> list[Group]:
        """A group for each problem. The function has a thread of its own: it may run an event loop in it."""
        prompts = [_plain(problem) for problem in problems for _ in range(group_size)]
        said = _checked(await asyncio.to_thread(self._function, prompts, self._trainer), len(prompts))
        places = range(0, len(prompts), group_size)
        return [
            self._group(problem, said, range(at, at + group_size)) for problem, at in zip(problems, places, strict=True)
        ]

    def _group(self, problem: Problem, said: Mapping[str, Any], rows: range) -> Group:
        prompts = [tuple(int(token) for token in said["prompt_ids"][row]) for row in rows]
        trunk = shared_start(prompts)
        rollouts = [
            Rollout(self._completion(said, row, prompt[trunk:])) for row, prompt in zip(rows, prompts, strict=True)
        ]
        return Group(problem, prompts[0][:trunk], tuple(rollouts))

    def _completion(self, said: Mapping[str, Any], row: int, beyond: tuple[int, ...]) -> Completion:
        """What the prompt has beyond the trunk of the group is nothing that the model drew."""
        policy = self._policy()
        ids = tuple(int(token) for token in said["completion_ids"][row])
        logprobs = tuple(_first(number) for number in said["logprobs"][row])
        mask = said.get("env_mask")
        drawn = (True,) * len(ids) if mask is None else tuple(bool(own) for own in mask[row])
        if not len(ids) == len(logprobs) == len(drawn) or not any(drawn):
            raise EngineError(
                f"rollout_func, row {row}: {len(ids)} completion_ids, {len(logprobs)} logprobs"
                + ("" if mask is None else f", {len(drawn)} in env_mask, {sum(drawn)} of them drawn by the model")
                + ": there has to be one of each for every token, and at least one token that the model drew"
            )
        untyped: Any = policy.tokenizer
        return Completion(
            token_ids=beyond + ids,
            logprobs=(0.0,) * len(beyond) + logprobs,
            finish_reason="stop" if ids[-1] in end_tokens(policy) else "length",
            text=str(untyped.decode(list(ids), skip_special_tokens=True)),
            own=() if all(drawn) and not beyond else (False,) * len(beyond) + drawn,
            columns={name: _of_row(value, row) for name, value in said.items() if name not in _TOLD},
        )


def _plain(problem: Problem) -> Any:
    return problem.prompt if isinstance(problem.prompt, str) else [dict(message) for message in problem.prompt]


def _checked(said: Any, rows: int) -> Mapping[str, Any]:
    if not isinstance(said, Mapping):
        raise EngineError(f"rollout_func returned a {type(said).__name__}: a dict with {', '.join(NEEDED)} is needed")
    given = cast("Mapping[str, Any]", said)
    for name in NEEDED:
        if given.get(name) is None:
            raise EngineError(f"rollout_func returned no {name!r}: it has {', '.join(given) or 'nothing'}")
        if len(given[name]) != rows:
            raise EngineError(
                f"rollout_func returned {len(given[name])} {name} for {rows} prompts: one for each is needed, and each "
                "prompt stands there as often as it is to be completed"
            )
    return given


def _of_row(value: Any, row: int) -> Any:
    """A list has a value for each row; anything else holds for all of them."""
    return cast("list[Any]", value)[row] if isinstance(value, list) else value


def _first(number: Any) -> float:
    """Some engines give a token's logprob as a list, the drawn token first."""
    return float(cast("Sequence[Any]", number)[0] if isinstance(number, Sequence) else number)
