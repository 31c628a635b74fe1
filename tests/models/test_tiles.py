"""Logprobs over a large vocabulary by tiles: the numbers of a softmax written out, wherever the tiles end."""

import pytest
import torch
from torch import nn, tensor

from architectures import policy_of
from groupwise.models import parts, tiles
from groupwise.models.head import Head
from groupwise.models.tiles import scored
from groupwise.models.trees import Tree

# ruff: noqa: N803, N806 - axis letters

pytestmark = pytest.mark.skipif(not parts.fits(torch.zeros(1)), reason="no C compiler here")

HIDDEN, VOCABULARY = 6, 43


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """So that 43 tokens of a vocabulary are three tiles, the last of which is narrower than a register."""
    monkeypatch.setattr(tiles, "TOKENS", 3)
    monkeypatch.setattr(tiles, "COLUMNS", 20)
    monkeypatch.setattr(tiles, "WORTH_TILES", 1)


@pytest.fixture
def passes(monkeypatch):
    """How often tiles were gone through."""
    counted = []
    before = tiles._Tiles.all
    monkeypatch.setattr(tiles._Tiles, "all", lambda self: counted.append(1) or before(self))
    return counted


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def head_of(weight_VH, scale=1.0):
    linear = nn.Linear(*weight_VH.shape[::-1], bias=False)
    linear.weight = nn.Parameter(weight_VH)
    return Head(linear, scale)


def written_out(features_TH, weight_VH, targets_T, scale):
    all_TV = (features_TH.double() @ weight_VH.double().t() * scale).log_softmax(-1)
    return all_TV.gather(-1, targets_T[:, None])[:, 0], -(all_TV.exp() * all_TV).sum(-1)


@pytest.mark.parametrize("tokens", [0, 1, 3, 8])
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize(("scale", "temperature"), [(1.0, 1.0), (0.25, 0.7)])
def test_logprobs_entropies_and_gradients(tokens, trained, scale, temperature, passes):
    features_TH, head = 3 * numbers(tokens, HIDDEN), head_of(numbers(VOCABULARY, HIDDEN, seed=1), scale)
    weight_VH = head.projection.weight.requires_grad_(trained)
    targets_T = torch.randint(VOCABULARY, (tokens,), generator=torch.Generator().manual_seed(2))
    pull_T = numbers(tokens, seed=3)
    wanted = [features_TH.requires_grad_(), *([weight_VH] if trained else [])]

    found = scored(features_TH, targets_T, head, temperature=temperature, chunk=100, with_entropy=True)
    exact = written_out(features_TH, weight_VH, targets_T, scale / temperature)
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)
    ours = torch.autograd.grad(found[0], wanted, pull_T)
    naive = torch.autograd.grad(exact[0], wanted, pull_T.double())
    for one, other in zip(ours, naive, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert len(passes) == 1 + trained  # the second one is for the gradient of the weight


def test_by_hand():
    """Two logits, ln 3 and 0: probabilities 3/4 and 1/4."""
    features_TH, head = tensor([[1.0], [1.0]]).requires_grad_(), head_of(tensor([[1.0986123], [0.0]]))
    logprobs_T, entropies_T = scored(features_TH, tensor([0, 1]), head, temperature=1.0, chunk=1, with_entropy=True)
    torch.testing.assert_close(logprobs_T, tensor([0.75, 0.25]).log())
    torch.testing.assert_close(entropies_T, tensor([0.5623351, 0.5623351]))
    logprobs_T[0].backward()
    # d logprob / d logits = (1 - 3/4, -1/4), times the feature; and back through the weights: 1/4 ln 3
    torch.testing.assert_close(head.projection.weight.grad, tensor([[0.25], [-0.25]]))
    torch.testing.assert_close(features_TH.grad, tensor([[0.25 * 1.0986123], [0.0]]))


@pytest.mark.parametrize("order", [1.0, -1.0])
def test_logits_far_from_each_other(order):
    """Whether the largest comes first or last, what it leaves of the others is 0 and no NaN."""
    head = head_of(order * torch.linspace(-3e4, 3e4, VOCABULARY)[:, None])
    likely = VOCABULARY - 1 if order > 0 else 0
    features_TH = torch.ones(1, 1, requires_grad=True)
    logprobs_T, entropies_T = scored(features_TH, tensor([likely]), head, temperature=1.0, chunk=1, with_entropy=True)
    assert logprobs_T.item() == 0 and entropies_T.item() == 0
    logprobs_T.sum().backward()
    assert features_TH.grad.item() == 0 and head.projection.weight.grad.abs().max() == 0


def test_nan_shows_where_it_is():
    features_TH = numbers(5, HIDDEN)
    features_TH[2, 0] = torch.nan
    head = head_of(numbers(VOCABULARY, HIDDEN, seed=1))
    logprobs_T, entropies_T = scored(
        features_TH, torch.zeros(5, dtype=torch.long), head, temperature=1.0, chunk=1, with_entropy=True
    )
    assert logprobs_T.isnan().tolist() == entropies_T.isnan().tolist() == [False, False, True, False, False]


def test_an_infinite_logit_shows():
    head = head_of(numbers(VOCABULARY, 1))
    logprobs_T, _ = scored(tensor([[torch.inf]]), tensor([0]), head, temperature=1.0, chunk=1)
    assert logprobs_T.isnan().all()


def test_the_number_of_threads_changes_nothing():
    features_TH, head = numbers(40, HIDDEN), head_of(numbers(VOCABULARY, HIDDEN, seed=1))

    def outcome(threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            leaf_TH = features_TH.clone().requires_grad_()
            logprobs_T, _ = scored(leaf_TH, torch.arange(40), head, temperature=1.0, chunk=1)
            return [logprobs_T, *torch.autograd.grad(logprobs_T.sum(), [leaf_TH, head.projection.weight])]
        finally:
            torch.set_num_threads(before)

    for one, other in zip(outcome(1), outcome(3), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_nothing_as_large_as_all_logits(monkeypatch):
    made = []
    before = torch.mm

    def watched(*args, out):
        made.append(out.numel())
        return before(*args, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    features_TH = numbers(10, HIDDEN).requires_grad_()
    head = head_of(numbers(VOCABULARY, HIDDEN, seed=1))
    scored(features_TH, torch.arange(10), head, temperature=1.0, chunk=1)[0].sum().backward()
    assert max(made) == 3 * 20 and len(made) == 2 * 4 * 3


def _with_bias():
    return Head(nn.Linear(HIDDEN, VOCABULARY))


def _hooked():
    head = head_of(numbers(VOCABULARY, HIDDEN))
    head.projection.register_forward_hook(lambda *_: None)
    return head


ODD = {
    "a bias": _with_bias,
    "a cap": lambda: Head(head_of(numbers(VOCABULARY, HIDDEN)).projection, cap=5.0),
    "a hook": _hooked,
    "another precision": lambda: head_of(numbers(VOCABULARY, HIDDEN).double()),
    "not a head of ours": lambda: head_of(numbers(VOCABULARY, HIDDEN)).projection,
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_odd_goes_the_other_way(kind, passes):
    head = ODD[kind]()
    dtype = torch.float64 if kind == "another precision" else torch.float32
    features_TH = numbers(4, HIDDEN).to(dtype)
    logprobs_T, _ = scored(features_TH, torch.arange(4), head, temperature=1.0, chunk=2)
    torch.testing.assert_close(logprobs_T, head(features_TH).log_softmax(-1).diagonal())
    assert not passes


def test_a_policy_goes_this_way(passes, monkeypatch):
    """The tiny models' logprobs, and the gradient of tied embeddings, are those of chunks."""
    policy = policy_of("qwen2")
    trees = [Tree((5, 8, 13), ((2, 3, 1), (4, 1)))]

    def outcome():
        logprobs_T, _ = policy.logprobs(trees)
        return [logprobs_T.detach(), *torch.autograd.grad(logprobs_T.sum(), list(policy.trainable().values()))]

    by_tiles, count = outcome(), len(passes)
    assert count == 2
    monkeypatch.setattr(tiles, "WORTH_TILES", 1 << 30)
    for one, other in zip(by_tiles, outcome(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert len(passes) == count
