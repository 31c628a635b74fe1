"""Packing by hand, and the layout against a mask written out token by token."""

import pytest
import torch
from torch import nn

from groupwise.models.attention import Terms
from groupwise.models.blocks import Blocks, Line
from groupwise.models.layout import PackedLayout
from groupwise.models.trees import PackedTrees, Tree, targets_of

CPU = torch.device("cpu")


def packed(*trees):
    return PackedTrees.of(trees, CPU)


def test_the_example_of_the_module():
    tree = Tree(trunk=(10, 11, 12), branches=((20, 21, 22), (30, 31)))
    assert (tree.fed, tree.predicted) == (6, 5)
    row = packed(tree)
    assert row.ids.tolist() == [[10, 11, 12, 20, 21, 30]]
    assert row.positions.tolist() == [[0, 1, 2, 3, 4, 3]]
    assert row.sources_T.tolist() == [2, 3, 4, 2, 5]
    assert row.targets_T.tolist() == [20, 21, 22, 30, 31]


def test_two_trees_with_empty_short_and_missing_branches():
    row = packed(Tree((1, 2), ((), (3,))), Tree((4,)), Tree((5, 6), ((7, 8), ())))
    assert row.ids.tolist() == [[1, 2, 4, 5, 6, 7]]
    assert row.positions.tolist() == [[0, 1, 0, 0, 1, 2]]
    assert row.sources_T.tolist() == [1, 4, 5]
    assert row.targets_T.tolist() == [3, 7, 8]
    assert [(span.trunk, len(span.branches)) for span in row.spans] == [
        (slice(0, 2), 2),
        (slice(2, 3), 0),
        (slice(3, 5), 2),
    ]


def test_nothing_at_all():
    tree = Tree((1, 2))
    assert (tree.fed, tree.predicted) == (2, 0)
    assert targets_of([tree], CPU).shape == (0,)
    assert packed(tree).sources_T.dtype == torch.long


def sight(trees, window):
    """[tokens, tokens] who may see whom, from the definition: own trunk and own branch, not later, not too far."""
    owners = []  # tree, branch (None in the trunk), position
    for i, tree in enumerate(trees):
        owners += [(i, None, position) for position in range(len(tree.trunk))]
        for b, branch in enumerate(tree.branches):
            owners += [(i, b, len(tree.trunk) + place) for place in range(max(len(branch) - 1, 0))]
    return torch.tensor(
        [
            [
                tree == other and seen in (None, branch) and 0 <= position - place < (window or 10**6)
                for other, seen, place in owners
            ]
            for tree, branch, position in owners
        ]
    )


def of_lengths(*trees):
    return [Tree((1,) * trunk, tuple((1,) * branch for branch in branches)) for trunk, *branches in trees]


SHAPES = {
    "one": [(3, 4, 1, 0, 6)],
    "many": [(3, 4, 1), (1,), (5, 9, 2, 9), (1, 1), (12, 3)],
    "small beside large": [(2, 3)] * 5 + [(90, 200, 4)] + [(150, 2)],
    "no branches": [(4,), (7,)],
}


@pytest.mark.parametrize("window", [None, 1, 2, 5, 64, 1000])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_token_sees_what_it_should(shape, window):
    """Attention in fp64 over the packed row, block by block, against one masked softmax over the whole row."""
    trees = of_lengths(*SHAPES[shape])
    row = packed(*trees)
    count = row.ids.shape[1]
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, count, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        for heads in (4, 2, 2)
    )
    expected = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=sight(trees, window), scale=0.7, enable_gqa=True
    ).transpose(1, 2)
    found = PackedLayout(row).attend(nn.Identity(), query, key, value, Terms(0.7, window, None))
    assert torch.allclose(found, expected, atol=1e-12, rtol=0)
    weights = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    for one, two in zip(
        torch.autograd.grad((found * weights).sum(), (query, key, value)),
        torch.autograd.grad((expected * weights).sum(), (query, key, value)),
        strict=True,
    ):
        assert torch.allclose(one, two, atol=1e-12, rtol=0)


def test_the_engine_is_told_the_keys_and_values_of_each_trunk():
    row = packed(Tree((1, 2)), Tree((3, 4, 5), ((6, 7, 8),)))
    key, value = torch.arange(7.0)[None, None, :, None], -torch.arange(7.0)[None, None, :, None]
    told = []
    layout = PackedLayout(row, lambda layer, index, k, v: told.append((layer, index, k.flatten(), v.flatten())))
    layer = nn.Identity()
    layout.attend(layer, key, key, value, Terms(1.0, 5, None))
    assert [(which is layer, index, k.tolist(), v.tolist()) for which, index, k, v in told] == [
        (True, 0, [0, 1], [0, -1]),
        (True, 1, [2, 3, 4], [-2, -3, -4]),
    ]
    assert layout.heard == [(layer, 5)]


def test_gradients_through_blocks_are_the_same_every_time():
    """A trunk's key gets its gradient from every branch, whichever thread is the first."""
    lines = [Line(0, 90, 0, 0), *(Line(90 + 40 * i, 40, 0, 90) for i in range(12))]
    row, before = torch.randn(570, 2, 16, generator=torch.Generator().manual_seed(0)), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        found = []
        for _ in range(6):
            key = row.clone().requires_grad_()
            out = Blocks(lines, CPU).attend(row, key, row, Terms(0.3, 60, None))
            out.square().sum().backward()
            found.append(key.grad)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])
