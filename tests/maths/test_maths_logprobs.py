"""Chunked logprobs: equal to the naive computation, and never more of the vocabulary in memory than promised."""

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn, tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from groupwise.maths import logprobs
from groupwise.maths.logprobs import chunked_logprobs

# ruff: noqa: N806 - axis letters

HIDDEN, VOCABULARY = 6, 23


class LoraHead(nn.Module):
    """A frozen matrix with a trained low-rank adapter beside it."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(HIDDEN, VOCABULARY, bias=False).requires_grad_(False)
        self.down, self.up = nn.Linear(HIDDEN, 2, bias=False), nn.Linear(2, VOCABULARY, bias=False)

    def forward(self, hidden):
        return self.base(hidden) + 2.0 * self.up(self.down(hidden))


class CappedHead(nn.Module):
    """Gemma's soft cap and Granite's scale, behind a bias."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, hidden):
        return 2.0 * torch.tanh(self.linear(hidden) / 3.0 / 2.0)


HEADS = {
    "linear": lambda: nn.Linear(HIDDEN, VOCABULARY, bias=False),
    "capped": CappedHead,
    "lora": LoraHead,
    "frozen": lambda: nn.Linear(HIDDEN, VOCABULARY).requires_grad_(False),
    "frozen capped": lambda: CappedHead().requires_grad_(False),
}


def naive_logprobs(hidden_T, targets_T, head, temperature):
    all_TV = (head(hidden_T) / temperature).log_softmax(-1)
    return all_TV.gather(-1, targets_T[:, None])[:, 0], -(all_TV.exp() * all_TV).sum(-1)


def example(kind, tokens, seed=0):
    torch.manual_seed(seed)
    head = HEADS[kind]().double()
    hidden_T = torch.randn(tokens, HIDDEN, dtype=torch.float64, requires_grad=True)
    return head, hidden_T, torch.randint(VOCABULARY, (tokens,)), torch.randn(2, tokens, dtype=torch.float64)


def gradients(loss, head, hidden_T):
    wanted = [hidden_T, *(p for p in head.parameters() if p.requires_grad)]
    return torch.autograd.grad(loss, wanted)


def equal(ours, expected):
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_by_hand():
    # logits [log 1, log 2, log 5] at temperature 1: probabilities 1/8, 2/8, 5/8
    hidden_T = tensor([[1.0, 2.0, 5.0]]).log().requires_grad_()
    logprobs_T, entropies_T = chunked_logprobs(
        hidden_T, tensor([1]), lambda h: h, temperature=1.0, chunk=8, with_entropy=True
    )
    assert logprobs_T.item() == pytest.approx(math.log(1 / 4))
    # 1/8 log 8 + 1/4 log 4 + 5/8 log 1.6 = 0.2599 + 0.3466 + 0.2938
    assert entropies_T.item() == pytest.approx(0.9003, abs=1e-4)
    logprobs_T.sum().backward()
    assert hidden_T.grad.tolist() == [pytest.approx([-1 / 8, 3 / 4, -5 / 8])]  # one-hot - p


def test_temperature_by_hand():
    # halving the logits takes roots: 1, sqrt 4, sqrt 9, of 6
    hidden_T = tensor([[1.0, 4.0, 9.0]]).log().requires_grad_()
    logprobs_T, _ = chunked_logprobs(hidden_T, tensor([2]), lambda h: h, temperature=2.0, chunk=8)
    assert logprobs_T.item() == pytest.approx(math.log(3 / 6))
    logprobs_T.sum().backward()
    assert hidden_T.grad.tolist() == [pytest.approx([-1 / 12, -2 / 12, 3 / 12])]  # (one-hot - p) / 2


@pytest.mark.parametrize("with_entropy", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("tokens", [0, 1, 12, 13])
@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("kind", HEADS)
def test_values_and_gradients_are_the_naive_ones(kind, chunk, tokens, temperature, with_entropy):
    head, hidden_T, targets_T, (slopes_T, _) = example(kind, tokens)
    logprobs_T, entropies_T = chunked_logprobs(
        hidden_T, targets_T, head, temperature=temperature, chunk=chunk, with_entropy=with_entropy
    )
    naive_T, naive_entropies_T = naive_logprobs(hidden_T, targets_T, head, temperature)
    equal(logprobs_T, naive_T)
    if with_entropy:
        equal(entropies_T, naive_entropies_T.detach())
        assert not entropies_T.requires_grad
    else:
        assert entropies_T is None
    ours = gradients((slopes_T * logprobs_T).sum(), head, hidden_T)
    for our, expected in zip(ours, gradients((slopes_T * naive_T).sum(), head, hidden_T), strict=True):
        equal(our, expected)


@pytest.mark.parametrize("kind", HEADS)
def test_the_gradient_of_the_entropy_when_it_is_asked_for(kind):
    head, hidden_T, targets_T, (slopes_T, entropy_slopes_T) = example(kind, 13)
    ours = chunked_logprobs(
        hidden_T, targets_T, head, temperature=0.7, chunk=5, with_entropy=True, entropy_gradient=True
    )
    naive = naive_logprobs(hidden_T, targets_T, head, 0.7)
    losses = [(slopes_T * logprobs_T + entropy_slopes_T * h_T).sum() for logprobs_T, h_T in (ours, naive)]
    equal(ours, naive)
    for our, expected in zip(*(gradients(loss, head, hidden_T) for loss in losses), strict=True):
        equal(our, expected)


def test_entropy_alone_can_be_differentiated():
    head, hidden_T, targets_T, _ = example("linear", 7)
    _, ours_T = chunked_logprobs(
        hidden_T, targets_T, head, temperature=1.0, chunk=3, with_entropy=True, entropy_gradient=True
    )
    _, naive_T = naive_logprobs(hidden_T, targets_T, head, 1.0)
    for our, expected in zip(*(gradients(h.sum(), head, hidden_T) for h in (ours_T, naive_T)), strict=True):
        equal(our, expected)


def test_gradients_equal_finite_differences():
    head, hidden_T, targets_T, (slopes_T, _) = example("capped", 5)

    def loss(hidden):
        return (slopes_T * chunked_logprobs(hidden, targets_T, head, temperature=1.3, chunk=2)[0]).sum()

    (gradient,) = torch.autograd.grad(loss(hidden_T), hidden_T)
    step = 1e-5
    for place in ((0, 0), (2, 3), (4, 5)):
        nudge = torch.zeros_like(hidden_T)
        nudge[place] = step
        slope = (loss(hidden_T + nudge) - loss(hidden_T - nudge)) / (2 * step)
        assert gradient[place].item() == pytest.approx(slope.item(), rel=1e-7)


def test_a_tied_head_and_its_embedding_share_one_gradient():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(VOCABULARY, HIDDEN, dtype=torch.float64))
    inputs_T, targets_T = torch.randint(VOCABULARY, (2, 9))

    def gradient(compute):
        weight.grad = None
        compute(F.embedding(inputs_T, weight).tanh(), targets_T, lambda h: F.linear(h, weight))[0].sum().backward()
        return weight.grad

    naive = gradient(lambda *args: naive_logprobs(*args, 1.0))
    equal(gradient(lambda *args: chunked_logprobs(*args, temperature=1.0, chunk=4)), naive)


def test_gradients_of_several_calls_add_up_in_the_parameters():
    head, hidden_T, targets_T, _ = example("linear", 9)
    for part in (slice(0, 5), slice(5, 9)):
        chunked_logprobs(hidden_T[part], targets_T[part], head, temperature=1.0, chunk=2)[0].sum().backward()
    in_parts = head.weight.grad.clone()
    head.weight.grad = None
    naive_logprobs(hidden_T, targets_T, head, 1.0)[0].sum().backward()
    equal(in_parts, head.weight.grad)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", ["linear", "frozen"])
def test_without_gradients(kind, mode):
    head, hidden_T, targets_T, _ = example(kind, 11)
    naive = naive_logprobs(hidden_T, targets_T, head, 0.9)
    with mode():
        ours = chunked_logprobs(hidden_T, targets_T, head, temperature=0.9, chunk=4, with_entropy=True)
    assert not ours[0].requires_grad and not ours[1].requires_grad
    equal(ours, tuple(value.detach() for value in naive))


def test_nothing_to_differentiate_needs_no_graph():
    head, hidden_T, targets_T, _ = example("frozen", 11)
    assert not chunked_logprobs(hidden_T.detach(), targets_T, head, temperature=1.0, chunk=4)[0].requires_grad


@pytest.mark.parametrize("kind", ["linear", "frozen"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened_before_the_softmax(kind, dtype):
    head, hidden_T, targets_T, (slopes_T, _) = example(kind, 13)
    head, hidden_T, slopes_T = head.to(dtype), hidden_T.detach().to(dtype).requires_grad_(), slopes_T.float()
    ours = chunked_logprobs(hidden_T, targets_T, head, temperature=0.7, chunk=4, with_entropy=True)
    naive = naive_logprobs(hidden_T, targets_T, lambda h: head(h).float(), 0.7)
    assert ours[0].dtype == ours[1].dtype == torch.float32
    torch.testing.assert_close(ours, tuple(value.detach() for value in naive), rtol=0, atol=1e-6)
    for our, expected in zip(*(gradients((slopes_T * v[0]).sum(), head, hidden_T) for v in (ours, naive)), strict=True):
        assert our.dtype == dtype
        torch.testing.assert_close(our, expected, rtol=0.02, atol=0.02)


def test_under_autocast_the_parameters_stay_in_fp32():
    head, hidden_T, targets_T, _ = example("linear", 13)
    head, hidden_T = head.float(), hidden_T.detach().float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logprobs_T, _ = chunked_logprobs(hidden_T, targets_T, head, temperature=1.0, chunk=4)
        naive_T, _ = naive_logprobs(hidden_T, targets_T, lambda h: head(h).float(), 1.0)
    assert logprobs_T.dtype == torch.float32
    torch.testing.assert_close(logprobs_T, naive_T, rtol=0, atol=1e-6)
    ours, expected = (gradients(value.sum(), head, hidden_T) for value in (logprobs_T, naive_T))
    assert all(gradient.dtype == torch.float32 for gradient in ours)
    torch.testing.assert_close(ours, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("entropy_gradient", [False, True])
def test_a_token_that_cannot_occur_leaves_everything_finite(entropy_gradient):
    # logits [log 1, log 3, -inf]: probabilities 1/4, 3/4, 0; entropy 1/4 log 4 + 3/4 log 4/3 = 0.5623351
    hidden_T = tensor([[1.0, 3.0, 0.0]]).log().requires_grad_()
    logprobs_T, entropies_T = chunked_logprobs(
        hidden_T,
        tensor([0]),
        lambda h: h + 0.0,
        temperature=1.0,
        chunk=8,
        with_entropy=True,
        entropy_gradient=entropy_gradient,
    )
    assert entropies_T.item() == pytest.approx(0.5623351)
    (logprobs_T.sum() + (entropies_T.sum() if entropy_gradient else 0.0)).backward()
    # -p (log p + H): 1/4 * (1.3862944 - 0.5623351) = 0.2059898, and minus that for the other
    extra = 0.2059898 if entropy_gradient else 0.0
    assert hidden_T.grad.tolist() == [pytest.approx([3 / 4 + extra, -3 / 4 - extra, 0.0])]


def test_dropout_in_the_head_is_the_same_when_computed_again():
    head, hidden_T, targets_T, _ = example("linear", 12)
    dropped = []

    def dropping(hidden):
        kept = F.dropout(hidden, 0.5)
        dropped.append(kept == 0)
        return head(kept)

    logprobs_T, _ = chunked_logprobs(hidden_T, targets_T, dropping, temperature=1.0, chunk=4)
    dropped_T = torch.cat(dropped)
    assert 20 < dropped_T.sum() < 52  # of 72
    logprobs_T.sum().backward()
    # A feature that was dropped on the way forward can have no gradient; with another mask, most would have one.
    assert torch.equal(hidden_T.grad == 0, dropped_T)


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("linear", [0, 5, 5, 3, 5, 5]),  # 13 tokens in chunks of at most 5; all but the last are computed again
        ("frozen", [0, 5, 5, 3]),
    ],
)
def test_the_head_runs_no_more_often_than_needed(kind, rows):
    head, hidden_T, targets_T, _ = example(kind, 13)
    seen = []

    def watched(hidden):
        seen.append(len(hidden))
        return head(hidden)

    chunked_logprobs(hidden_T, targets_T, watched, temperature=1.0, chunk=5)[0].sum().backward()
    assert seen == rows


class OpCounter(TorchDispatchMode):
    """Counts how often each operation runs."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


def test_entropies_are_not_computed_again_in_the_backward_pass():
    head, hidden_T, targets_T, _ = example("linear", 13)
    with OpCounter() as counter:
        logprobs_T, _ = chunked_logprobs(hidden_T, targets_T, head, temperature=1.0, chunk=5, with_entropy=True)
        logprobs_T.sum().backward()
    assert counter.calls["nansum"] == 3  # chunks
    assert counter.calls["_log_softmax"] == 5  # and two of them again


def test_no_gradient_is_computed_where_nothing_wants_one():
    head, hidden_T, targets_T, _ = example("frozen", 13)
    with OpCounter() as counter:
        chunked_logprobs(hidden_T.detach(), targets_T, head, temperature=1.0, chunk=5)
        assert counter.calls["scatter_add_"] == 0
        chunked_logprobs(hidden_T, targets_T, head, temperature=1.0, chunk=5)
        assert counter.calls["scatter_add_"] == 3


def test_a_second_backward_pass_is_refused_rather_than_wrong():
    head, hidden_T, targets_T, _ = example("linear", 3)
    logprobs_T, _ = chunked_logprobs(hidden_T, targets_T, head, temperature=1.0, chunk=3)
    logprobs_T.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        logprobs_T.sum().backward()


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"chunk": 0}, {"entropy_gradient": True}])
def test_impossible_settings_are_our_own_mistake(wrong):
    head, hidden_T, targets_T, _ = example("linear", 3)
    with pytest.raises(AssertionError):
        chunked_logprobs(hidden_T, targets_T, head, **{"temperature": 1.0, "chunk": 4, **wrong})


class VocabularyMeter(TorchDispatchMode):
    """Counts the numbers that live in storages with one entry per token and vocabulary entry, op by op."""

    def __init__(self, width):
        super().__init__()
        self.width, self.live, self.peak = width, {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            # The head's own matrix and its gradients are HIDDEN x width: they are there with any method.
            wide = isinstance(value, torch.Tensor) and value.ndim == 2 and value.shape[1] == self.width
            if wide and value.shape[0] != HIDDEN:
                storage = StorageWeakRef(value.untyped_storage())
                self.live[storage.cdata] = (storage, value.untyped_storage().nbytes() // value.element_size())
        self.live = {key: pair for key, pair in self.live.items() if not pair[0].expired()}
        self.peak = max(self.peak, sum(numbers for _, numbers in self.live.values()))
        return result


def peak(compute, kind, tokens):
    torch.manual_seed(0)
    head, width = HEADS[kind]().double(), VOCABULARY
    hidden_T = torch.randn(tokens, HIDDEN, dtype=torch.float64, requires_grad=True)
    with VocabularyMeter(width) as meter:
        logprobs_T = compute(hidden_T, torch.randint(width, (tokens,)), head)[0]
        if logprobs_T.requires_grad:
            logprobs_T.sum().backward()
    assert hidden_T.grad is not None or not logprobs_T.requires_grad
    return meter.peak / width


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("entropy", ["none", "observed", "differentiable"])
def test_no_more_than_a_few_chunks_of_the_vocabulary_live_at_once(kind, entropy):
    def ours(hidden_T, targets_T, head):
        return chunked_logprobs(
            hidden_T,
            targets_T,
            head,
            temperature=0.7,
            chunk=8,
            with_entropy=entropy != "none",
            entropy_gradient=entropy == "differentiable",
        )

    peaks = [peak(ours, kind, tokens) for tokens in (32, 160)]
    assert peaks[0] == peaks[1], "five times the tokens must not cost more"
    assert 8 <= peaks[1] <= 6 * 8


def test_the_meter_sees_what_the_naive_way_keeps():
    assert peak(lambda *args: naive_logprobs(*args, 0.7), "linear", 160) >= 3 * 160


def test_without_gradients_only_two_chunks_live_at_once():
    @torch.no_grad()
    def ours(hidden_T, targets_T, head):
        return chunked_logprobs(hidden_T, targets_T, head, temperature=1.0, chunk=8)

    assert peak(ours, "linear", 160) <= 2 * 8


def test_features_that_are_logits_already_are_not_doubled():
    # A model whose head could not be told apart gives its logits as features: [T, V] is there, and stays the only one.
    logits_T = torch.randn(160, VOCABULARY, dtype=torch.float64, requires_grad=True)
    with VocabularyMeter(VOCABULARY) as meter:
        logprobs_T, _ = chunked_logprobs(
            logits_T, torch.zeros(160).long(), lambda h: h, temperature=1.0, chunk=8, with_entropy=True
        )
        kept = meter.peak / VOCABULARY
        logprobs_T.sum().backward()
    assert kept <= 160 + 4 * 8
    equal(logits_T.grad.sum(-1), torch.zeros(160, dtype=torch.float64))
    assert (logits_T.grad[:, 0] > 0).all()


def test_a_large_vocabulary_makes_chunks_shorter(monkeypatch):
    hidden_T, targets_T = torch.randn(300, 2), torch.zeros(300, dtype=torch.long)
    asked = []

    def head(hidden):
        asked.append(len(hidden))
        return hidden.new_zeros(len(hidden), 10)

    monkeypatch.setattr(logprobs, "LOGITS", 1000)
    found, _ = chunked_logprobs(hidden_T, targets_T, head, temperature=1.0, chunk=250)
    assert asked == [0, 100, 100, 100]
    assert found == pytest.approx([-math.log(10)] * 300)
    monkeypatch.setattr(logprobs, "LOGITS", 10)
    chunked_logprobs(hidden_T, targets_T, head, temperature=1.0, chunk=250)
    assert asked[4:] == [0, 60, 60, 60, 60, 60], "never shorter than FEWEST, all of about one size"
