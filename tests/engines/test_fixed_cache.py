"""Shapes and addresses that stay: few forms, and nothing moves while a form lasts. What it computes is held against
the plain numbers in `test_branch_cache.py`, beside the cache that moves."""

import random

import torch
from test_branch_cache import LAYERS, Mirror

from groupwise.engines.fixed_cache import FixedCache, Form, rounded
from groupwise.engines.holding import Batch
from groupwise.models.attention import Terms

TERMS = Terms(0.5, None, None)


def addresses(cache):
    """Of all that a step reads and writes."""
    views = [x for layer in LAYERS for x in cache._views[layer]]
    indexes = [cache._origins, cache._starts_of_rows, cache._lengths_of_rows, cache._places, cache._filled]
    return [x.data_ptr() for x in (*views, *indexes, cache._column)]


def test_counts_are_rounded_to_few_numbers():
    assert sorted({rounded(i) for i in range(130)}) == [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192]
    assert all(i <= rounded(i) < max(1.5 * i, 2) for i in range(1, 500))


def test_the_form_by_hand():
    mirror = Mirror(TERMS, FixedCache)
    mirror.admit((65, 5), (3, 1), (7, 1))
    assert mirror.cache.form == Form(rows=8, slots=3, most=6, prompt=128, room=64)
    mirror.keep(1, 4, 5)
    assert mirror.cache.form == Form(rows=3, slots=2, most=2, prompt=128, room=64)
    mirror.keep(2)
    assert mirror.cache.form == Form(rows=1, slots=1, most=1, prompt=64, room=64)


def test_nothing_moves_while_a_form_lasts_and_when_it_comes_back():
    mirror = Mirror(TERMS, FixedCache)
    mirror.admit((9, 4), (5, 4))
    mirror.step()
    before, generation, form = addresses(mirror.cache), mirror.cache.generation, mirror.cache.form
    mirror.step()
    assert addresses(mirror.cache) == before
    mirror.keep(*range(1, 8))  # one less, which is rounded up to as many
    mirror.step()
    assert (mirror.cache.form, addresses(mirror.cache)) == (form, before)
    mirror.keep(1)
    mirror.step()
    assert mirror.cache.form != form
    mirror.keep()
    mirror.admit((4, 4), (8, 4))  # the next batch
    mirror.step()
    assert (mirror.cache.form, addresses(mirror.cache)) == (form, before)
    assert mirror.cache.generation == generation


def test_memory_that_does_not_suffice_is_told():
    mirror = Mirror(TERMS, FixedCache)
    mirror.admit((9, 2))
    mirror.step()
    generation, size = mirror.cache.generation, mirror.cache.bytes
    mirror.admit((9, 6))
    mirror.step()
    assert mirror.cache.generation > generation
    assert mirror.cache.bytes > size


def test_what_was_given_back_is_made_anew():
    mirror = Mirror(TERMS, FixedCache)
    mirror.admit((9, 2), (4, 3))
    mirror.step()
    generation = mirror.cache.generation
    mirror.cache.release()  # in the middle, as after an error
    mirror.rows, mirror.trunk_lengths = [], []
    assert (mirror.cache.bytes, mirror.cache.form.rows) == (0, 0)
    assert mirror.cache.generation > generation
    mirror.admit((2, 1), (3, 2))
    for _ in range(70):
        mirror.step()


def test_hundreds_of_batches_leave_little_behind():
    """Of 300 batches of all sizes: one index for each number of rows, and no memory beyond that of the largest."""
    cache, r = FixedCache(torch.device("cpu")), random.Random(0)
    largest, forms = 0, set()
    for _ in range(300):
        sizes = [(r.randint(1, 200), r.randint(1, 8)) for _ in range(r.randint(1, 8))]
        trunks = {layer: [(torch.ones(1, 1, n, 1), torch.ones(1, 1, n, 1)) for n, _ in sizes] for layer in LAYERS}
        cache.admit(trunks, [rows for _, rows in sizes])
        rows = sum(n for _, n in sizes)
        while rows:
            cache._columns += r.randint(1, 60)
            cache.begin()
            forms.add(cache.form)
            largest = max(largest, cache.form.rows * cache.form.room)
            rows -= r.randint(1, rows)
            cache.keep(sorted(r.sample(range(len(cache._slots)), rows)))
    assert len(forms) > 300
    assert len(cache._indexes) < 120
    held = [memory for (_, name), memory in cache._memory.items() if not name.startswith("trunk")]
    assert all(memory.numel() <= largest for memory in held)


def test_its_size_is_what_it_says():
    """Two layers of 2 key heads, keys of 3 and values of 5 numbers of 8 bytes."""
    mirror = Mirror(TERMS, FixedCache)
    mirror.admit((65, 5), (3, 1))
    for _ in range(65):
        mirror.step()
    batch = Batch(prompts=2, prompt=65, rows=6, completion=65)
    assert mirror.cache.bytes == 2 * 2 * (3 + 5) * 8 * mirror.cache.tokens_for(batch)


def test_numbers_that_are_none_do_not_stay():
    """A model that fell apart, and was put back: where its keys stood there are zeros again, not NaN times 0."""
    cache = FixedCache(torch.device("cpu"))
    bad, good = torch.full((1, 2, 5, 3), torch.nan), torch.randn(1, 2, 4, 3)
    for trunk in (bad, good):
        cache.admit({layer: [(trunk, trunk)] for layer in LAYERS}, [3])
        cache.begin()
        new = trunk[:, :, :1].expand(4, -1, -1, -1)[: cache.form.rows]
        found = cache.attend(LAYERS[0], new, new, new, TERMS)
        cache.attend(LAYERS[1], new, new, new, TERMS)
        assert bool(found.isfinite().all()) is (trunk is good)
        cache.keep([])
