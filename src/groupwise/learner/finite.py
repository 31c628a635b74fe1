"""Numbers that are not finite are found before they reach the weights, and blamed on the token that they came from.

    check_groups(groups)                               rewards, the sampler's logprobs, advantages
    check_terms({"the loss": ..., ...}, batch.places_T)   what one micro-batch gave
    blamed(error, groups, is_finite)                   the same error, with problem, completion and token

A gradient belongs to a whole update. Whose it is, is found by bisection: the update's completions, then the tokens of
the one that was found, are cut off at the end until the gradient is finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from groupwise.errors import LearnerError
from groupwise.learner.packing import at_place
from groupwise.types import Group

CURE = (
    "The update was not made. Usual causes: a learning rate that is far too high, weights of the model that are not "
    "finite, fp16 where bf16 or fp32 is needed, an algorithm's entry of your own"
)


@dataclass(frozen=True, slots=True)
class Blame:
    """Where a number that is not finite was found. `token` counts from 0 within the completion."""

    what: str
    value: float
    group: int | None = None
    branch: int | None = None
    token: int | None = None


OLD = "the old logprob"
"""The name of the one term that may be -inf."""


class NonFiniteError(LearnerError):
    """A number of an update is not finite. The update was not made; `groups` are those that it would have learnt from.

    `place` is that of the token among all that train, until `blamed` has made a completion of a problem of it.
    """

    def __init__(self, blame: Blame, *, place: int | None = None, groups: Sequence[Group] = ()) -> None:
        super().__init__(_words(blame, groups))
        self.blame, self.place, self.groups = blame, place, tuple(groups)

    def with_note(self, note: str) -> NonFiniteError:
        """The same error, whose message ends with a note."""
        self.args = (f"{self}. {note}",)
        return self


def check_groups(groups: Sequence[Group]) -> None:
    """Raise if a reward or an advantage is not finite, or a sampler's logprob nan or +inf: -inf is what an engine may
    report of a token that its top-k cut, and the ratios know what to do with it."""
    for index, group in enumerate(groups):
        for branch, rollout in enumerate(group.rollouts):
            numbers = {"the reward": rollout.reward, "the advantage": rollout.advantage}
            wrong = [(name, x) for name, x in numbers.items() if x is not None and not math.isfinite(x)]
            for name, value in wrong:
                raise NonFiniteError(Blame(name, value, index, branch), groups=groups)
            token = next((t for t, x in enumerate(rollout.completion.logprobs) if not x < math.inf), None)
            if token is not None:
                value = rollout.completion.logprobs[token]
                raise NonFiniteError(Blame("the sampler's logprob", value, index, branch, token), groups=groups)


@torch.no_grad()
def check_terms(terms: Mapping[str, Tensor | None], places_T: Tensor) -> None:
    """Raise if a number is not finite: a tensor [T] by token, or one for the whole micro-batch. In the order given. Old
    logprobs can be the sampler's and, like these, -inf."""
    given = {name: x.clamp_min(0.0) if name == OLD else x for name, x in terms.items() if x is not None}
    if not given or bool(torch.stack([values.isfinite().all() for values in given.values()]).all()):
        return  # the one look at values, for which a GPU is waited for
    for name, values in given.items():
        if bool(values.isfinite().all()):
            continue
        if values.ndim == 0:
            raise NonFiniteError(Blame(name, float(values)))
        first = int((~values.isfinite()).nonzero()[0, 0])
        raise NonFiniteError(Blame(name, float(values[first])), place=int(places_T[first]))


def blamed(
    error: NonFiniteError, groups: Sequence[Group], is_finite: Callable[[Sequence[Group]], bool]
) -> NonFiniteError:
    """The error with the completion and the token that it came from, and all groups of the batch.

    `is_finite` says whether the loss and the gradient of these groups are; it is asked about twenty times, and only
    where the error names no token.
    """
    blame = error.blame
    if error.place is not None:
        group, branch, token = at_place(groups, error.place)
        return NonFiniteError(replace(blame, group=group, branch=branch, token=token), groups=groups)
    if blame.group is not None:
        return error
    return NonFiniteError(_bisected(blame, groups, is_finite), groups=groups)


def _bisected(blame: Blame, groups: Sequence[Group], is_finite: Callable[[Sequence[Group]], bool]) -> Blame:
    """Cut off at the end what is not needed for the number to be not finite."""
    rollouts = [(g, b) for g, group in enumerate(groups) for b, _ in enumerate(group.rollouts)]
    count = _smallest(len(rollouts), lambda n: not is_finite(list(_only(groups, rollouts[:n]))))
    if count is None:
        return blame  # each is finite, and only their sum is not
    group, branch = rollouts[count - 1]
    one = groups[group].rollouts[branch]

    def first(n: int) -> list[Group]:
        whole = one.completion
        parts = {"token_ids": whole.token_ids[:n], "logprobs": whole.logprobs[:n], "own": whole.own[:n]}
        completion = replace(whole, **parts)
        return [replace(groups[group], rollouts=(replace(one, completion=completion),))]

    tokens = _smallest(len(one.completion.token_ids), lambda n: not is_finite(first(n)))
    return replace(blame, group=group, branch=branch, token=None if tokens is None else tokens - 1)


def _smallest(most: int, holds: Callable[[int], bool]) -> int | None:
    """The smallest number from 1 to `most` for which it holds, given that it then holds for all above; None: none."""
    if not most or not holds(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _only(groups: Sequence[Group], kept: Sequence[tuple[int, int]]) -> Iterator[Group]:
    of: dict[int, list[int]] = {}
    for group, branch in kept:
        of.setdefault(group, []).append(branch)
    for group, branches in of.items():
        yield replace(groups[group], rollouts=tuple(groups[group].rollouts[branch] for branch in branches))


def _words(blame: Blame, groups: Sequence[Group]) -> str:
    where = ""
    if blame.group is not None and blame.branch is not None and groups:
        group = groups[blame.group]
        where = f" in completion {blame.branch} of the problem {group.problem.id!r}"
        if blame.token is not None:
            token_ids = group.rollouts[blame.branch].completion.token_ids
            where = f" at token {blame.token} (id {token_ids[blame.token]}) of {len(token_ids)}{where}"
    return f"{blame.what} is {blame.value}{where}. {CURE}"
