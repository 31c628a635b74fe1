"""Attention in compiled code is the softmax written out, whatever the lines, heads and threads are."""

import pytest
import torch

from groupwise.models import compiled_attention
from groupwise.models.compiled_attention import CompiledRow
from groupwise.models.kernels import Heads, Row, Seen

CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(not compiled_attention.fits(CPU, torch.float32), reason="no compiler on this machine")

TREES = {
    "one group": [(5, [3, 1, 4])],
    "no branches": [(40, [])],
    "many trees": [(9, [2, 7]), (1, [1]), (20, []), (3, [40])],
    "long lines": [(140, [150, 1, 30]), (33, [135])],
    "nothing to share": [(1, [1])],
}
HEADS = [Heads(4, 2, 32), Heads(3, 1, 16), Heads(5, 5, 24), Heads(2, 2, 7), Heads(68, 1, 4)]


def lines_of(trees):
    """Own lines, what branches see of their trunk, and how many tokens there are."""
    own, trunk, at = [], [], 0
    for first, branches in trees:
        root, at = slice(at, at + first), at + first
        own.append(root)
        start = at
        for length in branches:
            own.append(slice(at, at + length))
            at += length
        if at > start:
            trunk.append(Seen(slice(start, at), root))
    return [Seen(run, run) for run in own], trunk, at


def written_out(query, key, value, own, trunk, scale):
    """In fp64, and the logsumexp."""
    visible = torch.block_diag(*(torch.ones(seen.lengths).tril() for seen in own)).bool()
    for seen in trunk:
        visible[seen.queries, seen.keys] = True
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scores = (query @ key.transpose(2, 3) * scale).masked_fill(~visible, -torch.inf)
    return scores.softmax(-1) @ value, scores.logsumexp(-1)


def random_row(heads, tokens, seed=0):
    generator = torch.Generator().manual_seed(seed)
    counts = (heads.queries, heads.keys, heads.keys, heads.queries)
    return [torch.randn(1, count, tokens, heads.dim, generator=generator) for count in counts]


@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("trees", TREES.values(), ids=TREES)
def test_it_is_the_softmax_written_out(trees, heads):
    own, trunk, tokens = lines_of(trees)
    query, key, value, grad = random_row(heads, tokens)
    exact = [x.double().requires_grad_() for x in (query, key, value)]
    expected, expected_lse = written_out(*exact, own, trunk, 0.3)
    expected_grads = torch.autograd.grad(expected, exact, grad.double())
    row = CompiledRow.of(own, trunk, heads, CPU)
    out, lse = row.forward(query, key, value, 0.3)
    found = row.backward(grad, Row(query, key, value, out, lse), 0.3)
    torch.testing.assert_close(out, expected.detach().float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse, expected_lse.detach().float(), atol=1e-5, rtol=1e-5)
    for one, other in zip(found, expected_grads, strict=True):
        torch.testing.assert_close(one, other.float(), atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bits_are_computed_in_fp32(dtype):
    """As what was rounded in fp32, but for rounding what comes out; strides that attention is given in, too."""
    heads, (own, trunk, tokens) = Heads(4, 2, 32), lines_of(TREES["many trees"])
    rounded = [x.to(dtype).transpose(1, 2).contiguous().transpose(1, 2) for x in random_row(heads, tokens)]
    found = []
    for query, key, value, grad in (rounded, [x.float() for x in rounded]):
        row = CompiledRow.of(own, trunk, heads, CPU)
        out, lse = row.forward(query, key, value, 0.3)
        # The output that a backward pass is given is a rounded one.
        grads = row.backward(grad, Row(query, key, value, out.to(dtype).to(out.dtype), lse), 0.3)
        found.append([out, *grads])
        assert lse.dtype == torch.float32
    for one, other in zip(*found, strict=True):
        assert one.dtype == dtype
        assert torch.equal(one, other.to(dtype))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_any_number_of_threads_gives_the_same_and_each_the_same_twice(threads):
    heads, (own, trunk, tokens) = Heads(4, 2, 32), lines_of(TREES["long lines"])
    query, key, value, grad = random_row(heads, tokens)

    def run(count):
        threads(count)
        row = CompiledRow.of(own, trunk, heads, CPU)
        out, lse = row.forward(query, key, value, 0.3)
        return out, *row.backward(grad, Row(query, key, value, out, lse), 0.3)

    alone = run(1)
    for count in (2, 3, 16):
        first, again = run(count), run(count)
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
        for one, other in zip(first, alone, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_memory_may_lie_in_any_order():
    """Token by token, as after a projection, or head by head; and dimensions that are not side by side."""
    heads, (own, trunk, tokens) = Heads(4, 2, 32), lines_of(TREES["many trees"])
    query, key, value, _ = random_row(heads, tokens)
    row = CompiledRow.of(own, trunk, heads, CPU)
    expected, _ = row.forward(query, key, value, 0.3)
    token_by_token = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (query, key, value)]
    scattered = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in (query, key, value)]
    for given in (token_by_token, scattered):
        assert torch.equal(row.forward(*given, 0.3)[0], expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize("which", [0, 1, 2], ids=["query", "key", "value"])
def test_what_is_not_finite_shows_in_the_output(which, bad):
    """It must not be taken for a very unlikely key: a run would go on with it."""
    heads, (own, trunk, tokens) = Heads(2, 2, 32), lines_of([(40, [3])])
    given = random_row(heads, tokens)[:3]
    given[which][0, 0, 2] = bad
    out, _ = CompiledRow.of(own, trunk, heads, CPU).forward(*given, 0.3)
    assert not out[0, 0, 2].isfinite().any()
    assert out[0, 1].isfinite().all(), "the other head has nothing to do with it"
    if which < 2:  # a value is multiplied by the zeros of those who do not see it
        assert out[0, 0, :2].isfinite().all(), "nor have the tokens before it"
