"""A group as token ids: one trunk and its branches, packed into one flat row without padding.

A model from transformers works token by token everywhere except in attention. So a whole group can go through it as
one row, the prompt once and its completions behind it, with position ids that restart at every branch:

    tree      Tree(trunk=(p0, p1, p2), branches=((a0, a1, a2), (b0, b1)))
    row       p0 p1 p2 | a0 a1 | b0        (a branch's last token predicts nothing and is not fed)
    position   0  1  2 |  3  4 |  3
    predicts        a0 |a1 a2  | b1        (p2 predicts the first token of every branch)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groupwise.models.transfer import on_device


@dataclass(frozen=True, slots=True)
class Tree:
    """A prompt's token ids and those of its completions. `branches` may be empty or hold empty ones."""

    trunk: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...] = ()
    own: tuple[tuple[bool, ...], ...] = ()
    """For each branch which of its tokens are asked for; empty: all of them. The others are fed and predict nothing."""

    @property
    def fed(self) -> int:
        """Tokens that go through the model."""
        return len(self.trunk) + sum(max(len(branch) - 1, 0) for branch in self.branches)

    @property
    def predicted(self) -> int:
        """Tokens whose logprob is wanted."""
        return sum(len(self.asked(index)) for index in range(len(self.branches)))

    def asked(self, branch: int) -> Sequence[int]:
        """The places in a branch of the tokens whose logprob is wanted."""
        own = self.own[branch] if self.own else ()
        return [i for i, wanted in enumerate(own) if wanted] if own else range(len(self.branches[branch]))


@dataclass(frozen=True, slots=True)
class Span:
    """Where one tree lies in the packed row: the trunk's slice, and the slice of each branch's fed tokens."""

    trunk: slice
    branches: tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class PackedTrees:
    """Many trees in one flat row.

    `sources_T[i]` is the place in the row whose features predict the i-th completion token `targets_T[i]`; completion
    tokens are numbered tree by tree, branch by branch, token by token. `first_B` are the numbers of the first tokens of
    the branches that have any: they share a source. `silent_T` are the places in branches that predict nothing.
    """

    ids: Tensor
    positions: Tensor
    spans: tuple[Span, ...]
    sources_T: Tensor
    targets_T: Tensor
    first_B: Tensor
    silent_T: Tensor

    @classmethod
    def of(cls, trees: Sequence[Tree], device: torch.device) -> PackedTrees:
        """Lay the trees out one behind the other."""
        ids: list[int] = []
        positions: list[int] = []
        sources: list[int] = []
        first: list[int] = []
        silent: list[int] = []
        spans: list[Span] = []
        for tree in trees:
            trunk = slice(len(ids), len(ids) + len(tree.trunk))
            ids += tree.trunk
            positions += range(len(tree.trunk))
            branches: list[slice] = []
            for index, branch in enumerate(tree.branches):
                fed = slice(len(ids), len(ids) + max(len(branch) - 1, 0))
                ids += branch[:-1]
                positions += range(len(tree.trunk), len(tree.trunk) + fed.stop - fed.start)
                asked = tree.asked(index)
                if asked and asked[0] == 0:
                    first.append(len(sources))
                sources += [fed.start + place - 1 if place else trunk.stop - 1 for place in asked]
                if len(asked) < len(branch):
                    silent += sorted(set(range(fed.start, fed.stop)) - {fed.start + place - 1 for place in asked})
                branches.append(fed)
            spans.append(Span(trunk, tuple(branches)))
        return cls(
            ids=on_device([ids], device),
            positions=on_device([positions], device),
            spans=tuple(spans),
            sources_T=on_device(sources, device, torch.long),
            targets_T=targets_of(trees, device),
            first_B=on_device(first, device, torch.long),
            silent_T=on_device(silent, device, torch.long),
        )


def targets_of(trees: Sequence[Tree], device: torch.device) -> Tensor:
    """All completion tokens that are asked for, in order, tree by tree and branch by branch."""
    flat = [branch[place] for tree in trees for i, branch in enumerate(tree.branches) for place in tree.asked(i)]
    return on_device(flat, device, torch.long)
