"""The cache against one softmax per row over everything that row has seen, in fp64."""

import pytest
import torch
from torch import nn

from groupwise.engines.cache import BranchCache
from groupwise.engines.fixed_cache import FixedCache
from groupwise.models.attention import Terms

HEADS, KV_HEADS, KEY, VALUE = 4, 2, 3, 5
LAYERS = (nn.Identity(), nn.Identity())


class Row:
    """What one completion has seen, per layer: its prompt's keys and values, and its own."""

    def __init__(self, trunk):
        self.seen = {layer: [trunk[layer]] for layer in LAYERS}
        self.length = 0


class Mirror:
    """A cache, and beside it rows that remember everything in plain lists."""

    def __init__(self, terms, kind=BranchCache, seed=0):
        self.cache, self.terms = kind(torch.device("cpu")), terms
        self.rows, self.trunk_lengths = [], []
        self.generator = torch.Generator().manual_seed(seed)

    def noise(self, *shape):
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def admit(self, *groups):
        """(prompt length, rows) of each."""
        trunks = {layer: [] for layer in LAYERS}
        for length, rows in groups:
            trunk = {
                layer: (self.noise(1, KV_HEADS, length, KEY), self.noise(1, KV_HEADS, length, VALUE))
                for layer in LAYERS
            }
            for layer in LAYERS:
                trunks[layer].append(trunk[layer])
            self.rows += [Row(trunk) for _ in range(rows)]
            self.trunk_lengths += [length] * rows
        self.cache.admit(trunks, [rows for _, rows in groups])

    def keep(self, *index):
        self.cache.keep(index)
        self.rows = [self.rows[i] for i in index]
        self.trunk_lengths = [self.trunk_lengths[i] for i in index]

    def step(self):
        """One token in every row, checked in every layer."""
        self.cache.begin()
        positions = self.cache.positions.tolist()
        count, there = len(self.rows), len(positions)  # a fixed cache has rows beside ours
        assert positions[:count] == [
            trunk + row.length for trunk, row in zip(self.trunk_lengths, self.rows, strict=True)
        ]
        for layer in LAYERS:
            query, key, value = (
                self.noise(there, heads, 1, size) for heads, size in ((HEADS, KEY), (KV_HEADS, KEY), (KV_HEADS, VALUE))
            )
            found = self.cache.attend(layer, query, key, value, self.terms)
            assert found.shape == (there, 1, HEADS, VALUE)
            assert found.isfinite().all()
            for i, row in enumerate(self.rows):
                row.seen[layer].append((key[i : i + 1], value[i : i + 1]))
                assert torch.allclose(found[i, 0], self.expected(query[i, :, 0], row.seen[layer]), atol=1e-12, rtol=0)
        for row in self.rows:
            row.length += 1

    def expected(self, query, seen):
        keys, values = (torch.cat([pair[which][0] for pair in seen], 1).repeat_interleave(2, 0) for which in (0, 1))
        scores = torch.einsum("hd,hkd->hk", query, keys) * self.terms.scaling
        if self.terms.softcap is not None:
            scores = self.terms.softcap * torch.tanh(scores / self.terms.softcap)
        if self.terms.window is not None:
            scores[:, : -self.terms.window] = float("-inf")
        return torch.einsum("hk,hkd->hd", scores.softmax(-1), values)


TERMS = [
    Terms(0.4, None, None),
    Terms(0.4, None, 1.5),
    Terms(0.4, 1, None),
    Terms(0.4, 4, None),
    Terms(0.4, 9, 0.8),
    Terms(0.4, 1000, None),
]
both_kinds = pytest.mark.parametrize("kind", [BranchCache, FixedCache])


@both_kinds
@pytest.mark.parametrize("terms", TERMS, ids=str)
def test_groups_come_go_and_are_joined(terms, kind):
    mirror = Mirror(terms, kind)
    mirror.admit((5, 3), (2, 1))
    for _ in range(4):
        mirror.step()
    mirror.keep(0, 2, 3)  # a gap in the first group
    mirror.step()
    mirror.admit((9, 2))  # a longer prompt, to rows that are ahead
    for _ in range(3):
        mirror.step()
    mirror.keep(2, 3, 4)  # the first group is gone, and with it its slot
    mirror.step()
    mirror.admit((1, 4), (3, 1))
    for _ in range(6):
        mirror.step()
    mirror.keep(1, 2)  # the longest prompt that is left is shorter than the block was
    for _ in range(3):
        mirror.step()


@both_kinds
@pytest.mark.parametrize("terms", TERMS[::2], ids=str)
def test_room_grows_at_64_and_128(terms, kind):
    mirror = Mirror(terms, kind)
    mirror.admit((3, 2), (6, 1))
    for place in range(135):
        if place == 60:
            mirror.admit((4, 2))  # their branches begin in a room of 64 and outgrow it with the others
        if place == 100:
            mirror.keep(0, 3)
        mirror.step()


@both_kinds
def test_columns_that_nobody_uses_any_more_go(kind):
    """Rows that joined late stay small, however long the engine has been at work: 200 tokens on, 3 columns and room."""
    mirror = Mirror(Terms(0.5, 9, None), kind)
    mirror.admit((4, 2))
    for joined in range(10):
        for _ in range(20):
            mirror.step()
        mirror.admit((3 + joined, 2))
        mirror.step()
        mirror.keep(2, 3)  # those that were there before have ended
    assert mirror.cache._columns == 1
    mirror.step()
    mirror.step()
    room = 64 if kind is FixedCache else 1 + 64
    assert {keys.shape[2] for keys, _ in mirror.cache._branches.values()} == {room}


def test_a_step_writes_one_column_and_copies_nothing_else():
    """While there is room, keys and values stay where they are in memory."""
    mirror = Mirror(Terms(0.5, None, None))
    mirror.admit((4, 3), (2, 2))
    mirror.step()
    held = [x for tensors in (mirror.cache._trunks, mirror.cache._branches) for pair in tensors.values() for x in pair]
    before, places = [x.clone() for x in held], [x.data_ptr() for x in held]
    mirror.step()
    now = [x for tensors in (mirror.cache._trunks, mirror.cache._branches) for pair in tensors.values() for x in pair]
    assert [x.data_ptr() for x in now] == places
    for was, is_, branch in zip(before, now, [False] * 4 + [True] * 4, strict=True):
        changed = (was != is_).any(-1).any(0).any(0).nonzero().flatten().tolist()
        assert changed == ([1] if branch else [])


@both_kinds
def test_everything_may_leave(kind):
    mirror = Mirror(Terms(0.5, 7, None), kind)
    mirror.admit((4, 2))
    mirror.step()
    mirror.keep()
    mirror.cache.begin()
    assert mirror.cache.positions.tolist() == []
    mirror.keep()
    mirror.admit((2, 1), (6, 2))
    for _ in range(70):
        mirror.step()


@both_kinds
def test_one_prompt_one_row(kind):
    mirror = Mirror(Terms(1.0, None, None), kind)
    mirror.admit((1, 1))
    for _ in range(3):
        mirror.step()


def test_prompts_are_kept_once_per_group():
    """8 rows of a prompt of 50 tokens hold 50 keys, not 400."""
    mirror = Mirror(Terms(1.0, None, None))
    mirror.admit((50, 8))
    mirror.step()
    sizes = [keys.shape for keys, _ in mirror.cache._trunks.values()]
    assert sizes == [(KV_HEADS, 1, 50, KEY)] * 2


def test_what_comes_out_is_contiguous():
    """JetMoE takes a `view` of it. One prompt and as many heads of keys as of queries leave the axes turned."""
    cache, layer = BranchCache(torch.device("cpu")), LAYERS[0]
    cache.admit({layer: [(torch.randn(1, 2, 5, 3), torch.randn(1, 2, 5, 4))]}, [3])
    cache.begin()
    query, key, value = torch.randn(3, 2, 1, 3), torch.randn(3, 2, 1, 3), torch.randn(3, 2, 1, 4)
    assert cache.attend(layer, query, key, value, Terms(1.0, None, None)).is_contiguous()
