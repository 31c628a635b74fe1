"""From groups to micro-batches: whole groups, up to a budget of tokens, with the weight of every token in them.

The weights come from counts of the whole update, so they are computed here, once, before anything is split. Where the
cuts fall then changes memory and speed and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groupwise.models.transfer import on_device
from groupwise.models.trees import Tree
from groupwise.types import Group


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Trees that go through the model together, and four numbers for each of their completion tokens, in order. What
    an environment said is fed with them, and has no number.

    `places_T` numbers the completion tokens of the whole batch of groups: where a token's old and reference logprob
    are kept between passes.
    """

    trees: tuple[Tree, ...]
    advantages_T: Tensor
    weights_T: Tensor
    rollout_T: Tensor
    sampled_T: Tensor
    places_T: Tensor


Weigh = Callable[..., Tensor]
"""Called with `lengths_R` and `group_R` by name."""


@dataclass(frozen=True, slots=True)
class _Branch:
    """One rollout on its way into a micro-batch."""

    trunk: tuple[int, ...]
    token_ids: tuple[int, ...]
    own: tuple[bool, ...]
    logprobs: tuple[float, ...]
    """Of its own tokens."""
    advantage: float
    group: int
    place: int

    @property
    def trained(self) -> int:
        """How many tokens it trains on."""
        return len(self.logprobs)


def divide(groups: Sequence[Group], parts: int) -> list[list[Group]]:
    """The groups of each update: `parts` runs of nearly equal length, none of them empty.

    Example: 7 groups in 3 parts are 3, 2 and 2 groups.
    """
    parts = min(parts, len(groups))
    sizes = [len(groups) // parts + (i < len(groups) % parts) for i in range(parts)]
    starts = [sum(sizes[:i]) for i in range(parts)]
    return [list(groups[start : start + size]) for start, size in zip(starts, sizes, strict=True)]


def pack(
    groups: Sequence[Group],
    weigh: Weigh,
    *,
    token_budget: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    first_place: int = 0,
    skip_silent: bool = False,
) -> list[MicroBatch]:
    """The micro-batches of one update. `dtype` is that of the loss.

    Rollouts that were not graded, or are masked, train nothing: they count as empty. With `skip_silent` rollouts of
    advantage 0 count in the weights but are not computed, since no term of the loss needs them. A group that alone is
    over the budget is cut between branches, each piece with the prompt again (see `room_of`).
    """
    branches = list(_branches(groups, first_place))
    lengths_R = torch.tensor([branch.trained for branch in branches], dtype=torch.long)
    group_R = torch.tensor([branch.group for branch in branches], dtype=torch.long)
    weights_R = weigh(lengths_R=lengths_R, group_R=group_R)
    weighted = [
        (branch, weight)
        for branch, weight in zip(branches, weights_R.tolist(), strict=True)
        if branch.trained and not (skip_silent and branch.advantage == 0)
    ]
    return [_micro_batch(piece, device, dtype) for piece in _pieces(weighted, token_budget)]


def room_of(trunk: int, token_budget: int) -> int:
    """Tokens of a micro-batch of one group, its prompt of so many included: room for as many tokens of completions as
    the prompt has, or as the budget has, lest a prompt that is longer than that be computed for each completion.

    Example: with a budget of 2,048 there are 1,848 tokens beside a prompt of 200, 1,500 beside one of 1,500, and 2,048
    beside one of 9,000.
    """
    return max(token_budget, trunk + min(trunk, token_budget))


def trained_tokens(groups: Sequence[Group]) -> int:
    """Completion tokens of all rollouts that train: how many places there are."""
    return sum(rollout.completion.drawn for group in groups for rollout in group.rollouts if rollout.trains)


def _branches(groups: Sequence[Group], place: int) -> Iterator[_Branch]:
    for index, group in enumerate(groups):
        for rollout in group.rollouts:
            completion = rollout.completion
            token_ids = completion.token_ids if rollout.trains else ()
            logprobs = completion.drawn_logprobs if rollout.trains else ()
            yield _Branch(group.prompt_ids, token_ids, completion.own, logprobs, rollout.advantage, index, place)
            place += len(logprobs)


Weighted = tuple[_Branch, float]


def _pieces(weighted: Sequence[Weighted], token_budget: int) -> Iterator[list[Weighted]]:
    """Whole groups while they fit; a group that never fits is cut between its branches."""
    piece: list[Weighted] = []
    used = 0
    for group in _by_group(weighted):
        trunk = len(group[0][0].trunk)
        budget = room_of(trunk, token_budget)
        size = trunk + sum(len(branch.token_ids) for branch, _ in group)
        if piece and used + size > token_budget:
            yield piece
            piece, used = [], 0
        if size <= budget:
            piece, used = piece + group, used + size
            continue
        used = trunk
        for branch, weight in group:
            if piece and used + len(branch.token_ids) > budget:
                yield piece
                piece, used = [], trunk
            piece.append((branch, weight))
            used += len(branch.token_ids)
    if piece:
        yield piece


def _by_group(weighted: Iterable[Weighted]) -> list[list[Weighted]]:
    groups: dict[int, list[Weighted]] = {}
    for item in weighted:
        groups.setdefault(item[0].group, []).append(item)
    return list(groups.values())


def _micro_batch(piece: Sequence[Weighted], device: torch.device, dtype: torch.dtype) -> MicroBatch:
    trees = [
        Tree(group[0][0].trunk, tuple(b.token_ids for b, _ in group), tuple(b.own for b, _ in group))
        for group in _by_group(piece)
    ]
    lengths = torch.tensor([branch.trained for branch, _ in piece])

    def spread(values: Sequence[float]) -> Tensor:
        """One value per rollout -> one per token."""
        return on_device(torch.tensor(values, dtype=dtype).repeat_interleave(lengths), device)

    return MicroBatch(
        trees=tuple(trees),
        advantages_T=spread([branch.advantage for branch, _ in piece]),
        weights_T=spread([weight for _, weight in piece]),
        rollout_T=on_device(torch.arange(len(piece)).repeat_interleave(lengths), device),
        sampled_T=on_device([x for branch, _ in piece for x in branch.logprobs], device, dtype),
        places_T=on_device(torch.cat([torch.arange(b.place, b.place + b.trained) for b, _ in piece]), device),
    )


def at_place(groups: Sequence[Group], place: int) -> tuple[int, int, int]:
    """The group, the completion in it and the token in that, of a place among all tokens that train.

    Example: with completions of 3 and 2 tokens in the first group, place 4 is `(0, 1, 1)`.
    """
    for number, branch in enumerate(_branches(groups, 0)):
        if branch.place <= place < branch.place + branch.trained:
            earlier = sum(len(group.rollouts) for group in groups[: branch.group])
            own = [t for t in range(len(branch.token_ids)) if not branch.own or branch.own[t]]
            return branch.group, number - earlier, own[place - branch.place]
    raise AssertionError(f"there is no place {place}")
