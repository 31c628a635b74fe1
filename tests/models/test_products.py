"""Matrix products in compiled code: torch's numbers in double precision, whatever the sizes and however they lie."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from architectures import policy_of
from groupwise.models import products
from groupwise.models.compiled import library
from groupwise.models.head import Head
from groupwise.models.tables import adding_up
from groupwise.models.trees import Tree
from toys import tiny_model

TREES = [Tree(tuple(range(2, 60)), (tuple(range(3, 40)), tuple(range(9, 70)), (4,)))]
SIZES = [(48, 48, 9), (64, 100, 33), (49, 513, 31), (131, 1100, 67), (70, 48, 1030), (513, 64, 512)]
"""Rows, depth and columns: blocks, panels, tiles and shares that are not full, and no block but one."""


@pytest.fixture(autouse=True)
def whatever_processor(monkeypatch):
    """The code is right on any processor, wanted or not."""
    made = library(products.SOURCE)
    if made is None:
        pytest.skip("no C compiler here")
    monkeypatch.setattr(products, "mkl_holds_back", lambda: True)
    monkeypatch.setattr(products, "WIDE", 1)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    products._compiled.cache_clear()
    yield
    products._compiled.cache_clear()


@pytest.fixture
def without_torch(monkeypatch):
    """Torch's own products fail, so that what is tested is ours."""

    def refused(*_, **__):
        raise AssertionError("torch multiplied")

    monkeypatch.setattr(torch, "mm", refused)
    monkeypatch.setattr(torch.Tensor, "addmm_", refused)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def lying(x, way):
    """The same numbers, elsewhere in memory."""
    if way == "crosswise":
        return x.t().contiguous().t()
    if way == "apart":
        room = x.new_full((x.shape[0], x.shape[1] + 5), float("nan"))
        room[:, 3:-2] = x
        return room[:, 3:-2]
    return x


@pytest.mark.usefixtures("without_torch")
@pytest.mark.parametrize("onto", [False, True])
@pytest.mark.parametrize("b_way", ["dense", "crosswise", "apart"])
@pytest.mark.parametrize("a_way", ["dense", "crosswise", "apart"])
@pytest.mark.parametrize("size", SIZES)
def test_a_product(size, a_way, b_way, onto):
    rows, depth, columns = size
    a, b = numbers(rows, depth), numbers(depth, columns, seed=1)
    # Written where numbers stand that must not count, and between others that must stay.
    room = numbers(rows + 2, columns, seed=2) if onto else torch.full((rows + 2, columns), float("nan"))
    before, out = room.clone(), room[1:-1]
    assert products.multiply(lying(a, a_way), lying(b, b_way), out, onto=onto) is out
    exact = a.double() @ b.double() + (before[1:-1].double() if onto else 0)
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=1e-5 * depth**0.5)
    torch.testing.assert_close(room[[0, -1]], before[[0, -1]], rtol=0, atol=0, equal_nan=True)


@pytest.mark.usefixtures("without_torch")
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 11, 16])
@pytest.mark.parametrize(("depth", "columns"), [(100, 33), (16, 4), (7, 3), (300, 1)])
def test_a_product_of_few_rows(monkeypatch, rows, depth, columns):
    monkeypatch.setattr(products, "LARGE", 0)
    a, b = numbers(rows, depth), numbers(depth, columns, seed=1)
    out = torch.full((rows, columns), float("nan"))
    products.multiply(lying(a, "apart"), lying(b, "crosswise"), out)
    torch.testing.assert_close(out.double(), a.double() @ b.double(), rtol=0, atol=1e-5 * depth**0.5)
    # A row comes to the same whatever the rows beside it: a completion does not depend on who is sampled with it.
    alone = products.multiply(a[-1:], lying(b, "crosswise"), torch.empty(1, columns))
    assert torch.equal(alone, out[-1:])


def test_the_head_of_a_sampler_is_ours_and_that_of_a_learner_is_not(monkeypatch):
    monkeypatch.setattr(products, "LARGE", 0)
    calls = []
    multiply = products.multiply
    monkeypatch.setattr(products, "multiply", lambda *given, **how: calls.append(1) or multiply(*given, **how))
    projection = nn.Linear(32, 200, bias=False)
    head, features = Head(projection, scale=0.5, cap=3.0), numbers(4, 32)
    expected = torch.tanh(F.linear(features, projection.weight) * 0.5 / 3.0) * 3.0
    torch.testing.assert_close(head(features), expected)
    assert not calls
    with torch.inference_mode():
        torch.testing.assert_close(head(features), expected)
        assert len(calls) == 1
        hook = projection.register_forward_hook(lambda module, given, logits: logits + 1)
        torch.testing.assert_close(head(features), torch.tanh((expected.div(3).atanh() * 3 / 0.5 + 1) * 0.5 / 3) * 3)
        hook.remove()
    assert len(calls) == 1


@pytest.mark.usefixtures("without_torch")
def test_the_number_of_threads_changes_no_bit():
    a, b = numbers(300, 700), numbers(700, 600, seed=1)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(products.multiply(a, b, torch.empty(300, 600)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.usefixtures("without_torch")
def test_deep_sums_and_sums_onto_large_numbers_are_rounded_as_little_as_torchs():
    a, b = numbers(64, 6000), numbers(6000, 64, seed=1)
    exact = a.double() @ b.double()
    found = products.multiply(a, b, torch.empty(64, 64))
    assert (found.double() - exact).abs().max() < 2e-4  # 6,000 terms, one by one: 7e-4
    onto = products.multiply(a, b, torch.full((64, 64), 1000.0), onto=True)
    # Twelve blocks of the depth, each rounded to the size of a thousand once.
    assert (onto.double() - exact - 1000).abs().max() < 13 * 3.1e-5


def test_what_does_not_go_together_is_refused_as_torch_refuses_it():
    forward = products.linear_of(nn.Linear(64, 96))
    assert forward is not None
    for width in (60, 4000):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            forward(torch.zeros(100, width))


def test_what_has_no_numbers_of_its_own_is_torchs():
    forward, layer = products.linear_of(plain := nn.Linear(64, 96)), plain
    assert forward is not None
    negative = torch.randn(100, 64, dtype=torch.complex64).conj().imag
    assert negative.is_neg()
    torch.testing.assert_close(forward(negative), layer(negative))
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert forward(torch.empty(100, 64)).shape == (100, 96)
    with torch.autocast("cpu", torch.bfloat16):
        assert forward(torch.zeros(100, 64)).dtype == torch.bfloat16
    assert forward(input=torch.zeros(0, 64)).shape == (0, 96)


@pytest.mark.usefixtures("without_torch")
def test_what_is_no_number_stays_none():
    a, b = numbers(64, 64), numbers(64, 40, seed=1)
    a[3, 5], b[7, 39] = float("nan"), float("inf")
    out = products.multiply(a, b, torch.empty(64, 40))
    assert out[3].isnan().all()
    assert not out[:3, 39].isfinite().any()
    assert out[4:, :39].isfinite().all()


@pytest.mark.parametrize(
    "size", [(0, 8, 8), (8, 0, 8), (8, 8, 0), (1, 300, 300), (64, 2, 64)], ids=lambda size: "x".join(map(str, size))
)
@pytest.mark.parametrize("onto", [False, True])
def test_small_and_empty_ones_are_torchs(size, onto):
    rows, depth, columns = size
    a, b, out = numbers(rows, depth), numbers(depth, columns, seed=1), numbers(rows, columns, seed=2)
    exact = a @ b + (out if onto else 0)
    torch.testing.assert_close(products.multiply(a, b, out, onto=onto), exact)


def test_another_precision_or_layout_of_the_result_is_torchs():
    a, b = numbers(64, 64).double(), numbers(64, 64, seed=1).double()
    assert torch.equal(products.multiply(a, b, torch.empty_like(a)), a @ b)
    turned = torch.empty(64, 64).t()
    found = products.multiply(a.float(), b.float(), turned)
    torch.testing.assert_close(found.double(), a @ b, rtol=0, atol=1e-4)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(70,), (2, 35), (1, 3), (0,), (2, 0)], ids=str)
def test_a_linear_layer_and_its_gradients(shape, bias, trained):
    layer = nn.Linear(65, 130, bias=bias).requires_grad_(trained)
    forward = products.linear_of(layer)
    assert forward is not None
    outcomes = []
    for function, dtype in ((forward, torch.float32), (layer, torch.float64)):
        layer.to(dtype)
        x = numbers(*shape, 65).to(dtype).requires_grad_()
        wanted = [x, *(layer.parameters() if trained else ())]
        out = function(x)
        pull = numbers(*out.shape, seed=5).to(dtype)
        outcomes.append([y.detach().double() for y in (out, *torch.autograd.grad(out, wanted, pull))])
        layer.to(torch.float32)
    assert len(outcomes[0]) == 2 + trained * (1 + bias)
    for one, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


def test_gradients_are_added_to_what_is_there():
    layer = nn.Linear(64, 96)
    forward, x = products.linear_of(layer), numbers(70, 64)
    assert forward is not None
    layer.weight.grad = torch.ones_like(layer.weight)
    with adding_up():
        forward(x).sum().backward()
        forward(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, 1 + 2 * x.sum(0).expand(96, 64), rtol=1e-4, atol=1e-4)


def test_what_is_more_than_a_linear_layer_keeps_its_own_way():
    class Louder(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    assert products.linear_of(Louder(64, 64)) is None
    assert products.linear_of(nn.LayerNorm(64)) is None
    assert products.linear_of(nn.Linear(64, 64).double()) is None
    forward, layer = products.linear_of(plain := nn.Linear(64, 64)), plain.bfloat16()
    assert forward is not None
    x = numbers(64, 64).bfloat16()
    assert torch.equal(forward(x), F.linear(x, layer.weight, layer.bias))


def test_a_policy_learns_the_same_with_them(monkeypatch):
    found, products_made = [], []
    multiply = products.multiply

    def counted(*given, **settings):
        products_made[-1] += 1
        return multiply(*given, **settings)

    monkeypatch.setattr(products, "multiply", counted)
    for ours in (True, False):
        monkeypatch.setattr(products, "mkl_holds_back", lambda ours=ours: ours)
        products._compiled.cache_clear()
        products_made.append(0)
        policy = policy_of(tiny_model())
        policy.use("trunk_and_branch")
        products_made[-1] = 0
        with policy.training(), adding_up():
            logprobs_T, _ = policy.logprobs(TREES)
            (logprobs_T * torch.linspace(-1, 1, len(logprobs_T))).sum().backward()
        found.append([logprobs_T.detach(), *(x.grad for x in policy.trainable().values())])
    # One forward, one for the gradient of what came in and one for the matrix's; not the head's.
    matrices = sum(type(module) is nn.Linear for module in policy.model.base_model.modules())
    assert products_made == [3 * matrices, 0]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_narrow_vectors_gain_nothing(monkeypatch):
    monkeypatch.setattr(products, "WIDE", 1 << 10)
    products._compiled.cache_clear()
    assert not products.fits(torch.zeros(1))


@pytest.mark.parametrize(
    ("processor", "vectors", "wanted"),
    [
        ("AuthenticAMD", "AVX512", True),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
        (None, "AVX512", False),
    ],
)
def test_wanted_where_mkl_holds_back(tmp_path, monkeypatch, processor, vectors, wanted):
    monkeypatch.undo()
    file = tmp_path / "cpuinfo"
    if processor:
        file.write_text(f"processor\t: 0\nvendor_id\t: {processor}\n")
    monkeypatch.setattr(products, "PROCESSORS", file)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: vectors)
    assert products.mkl_holds_back() is wanted


def test_beside_a_weight_that_is_not_trained_nothing_is_kept():
    layer = nn.Linear(64, 96)
    forward, x = products.linear_of(layer), numbers(70, 64).requires_grad_()
    assert forward is not None
    for trained, kept in ((True, [(70, 64), (96, 64)]), (False, [(96, 64)])):
        layer.requires_grad_(trained)
        saved = forward(x).grad_fn.saved_tensors
        assert [tuple(y.shape) for y in saved if y is not None] == kept
