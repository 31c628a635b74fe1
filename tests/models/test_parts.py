"""Parts of a model in compiled code: torch's numbers in double precision, whatever the sizes; NaN stays NaN."""

import pytest
import torch
import torch.nn.functional as F

from architectures import policy_of
from groupwise.models import parts
from groupwise.models.rotary import NAME, Rotary

pytestmark = pytest.mark.skipif(not parts.fits(torch.zeros(1)), reason="no C compiler here")

SIZES = [(1, 1), (3, 7), (5, 16), (2, 33), (130, 256), (0, 8)]


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def outcome(function, *inputs):
    """Output and gradients under a fixed pull, in double precision."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    out = function(*inputs)
    pull = numbers(*out.shape, seed=9).to(out.dtype)
    return [x.detach().double() for x in (out, *torch.autograd.grad(out, inputs, pull))]


def agree(fast, exact, *inputs):
    for one, other in zip(outcome(fast, *inputs), outcome(exact, *(x.double() for x in inputs)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("add", [0.0, 1.0])
def test_rms_norm(size, add):
    def exact(x, weight):
        return x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-5) * (weight + add)

    agree(lambda x, w: parts.rms_norm(x, w, 1e-5, add), exact, numbers(*size), numbers(size[1], seed=1))


@pytest.mark.parametrize("size", SIZES)
def test_gated(size):
    agree(parts.gated, lambda gate, up: F.silu(gate) * up, 4 * numbers(*size), numbers(*size, seed=1))


def test_far_out_the_gate_is_shut_or_open():
    gate = torch.tensor([-1e4, -90.0, 90.0, 1e4])
    found = outcome(parts.gated, gate, torch.ones(4))
    torch.testing.assert_close(found[0], torch.tensor([0.0, 0.0, 90.0, 1e4], dtype=torch.float64), atol=1e-30, rtol=0)
    assert all(x.isfinite().all() for x in found)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("dim", [2, 6, 64])
def test_rotation_as_written_in_the_paper(heads, dim):
    angle = numbers(1, 5, dim // 2, seed=2).repeat(1, 1, 2)

    def exact(x):
        half = torch.cat([-x[..., dim // 2 :], x[..., : dim // 2]], -1)
        return x * angle.cos().to(x.dtype) + half * angle.sin().to(x.dtype)

    # As a layer has it: heads within tokens, seen as tokens within heads.
    agree(lambda x: parts.rotated(x.transpose(1, 2), angle.cos(), angle.sin()),
          lambda x: exact(x.transpose(1, 2)), numbers(1, 5, heads, dim))  # fmt: skip


@pytest.mark.parametrize("function", [
    lambda x: parts.rms_norm(x, torch.ones(40), 1e-5, 0.0),
    lambda x: parts.gated(x, torch.ones(2, 40)),
    lambda x: parts.gated(torch.ones(2, 40), x),
])  # fmt: skip
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [3, 39])
def test_what_is_not_finite_stays_so(function, bad, place):
    x = numbers(2, 40)
    x[1, place] = bad
    out = function(x)
    assert not out[1].isfinite().all() and out[0].isfinite().all()


def test_a_sum_over_rows_is_the_same_every_time():
    x, weight = numbers(1000, 48), numbers(48, seed=1)
    first, second = (outcome(lambda x, w: parts.rms_norm(x, w, 1e-5, 0.0), x, weight) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_file_of_a_model_gets_its_own_rotation_back():
    model = policy_of("llama").model
    file = vars(__import__(type(model).__module__, fromlist=[NAME]))
    own, one, other = file[NAME], Rotary(model), Rotary(model)
    first, second = one.at_work(), other.at_work()
    first.__enter__()
    assert file[NAME] is not own
    second.__enter__()
    first.__exit__(None, None, None)
    assert file[NAME] is not own, "the other one is still at work"
    second.__exit__(None, None, None)
    assert file[NAME] is own


def test_another_kind_of_rotation_is_left_alone():
    from transformers.models.glm import modeling_glm

    from groupwise.models.rotary import _Loan

    assert _Loan.of(modeling_glm.__name__) is None


@pytest.fixture(params=[torch.float64, torch.bfloat16], ids=str)
def default_dtype(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("default_dtype")
def test_torchs_default_dtype_changes_nothing():
    """A user's own script may have set it: in bf16 the results of another size overran their memory."""
    x, up = (torch.ones(1, 3, 700, 64, dtype=torch.float32, requires_grad=True) for _ in range(2))
    angle = torch.zeros(1, 700, 64, dtype=torch.float32)
    weight = torch.full((64,), 2.0, dtype=torch.float32, requires_grad=True)
    normed, turned = parts.rms_norm(x, weight, 0.0), parts.rotated(x, angle.cos(), angle.sin())
    made = parts.gated(x, up)
    assert (normed == 2).all() and (turned == 1).all() and torch.allclose(made, F.silu(x))
    grads = torch.autograd.grad(normed.sum() + turned.sum() + made.sum(), [x, weight, up])
    assert all(one.dtype == torch.float32 for one in (normed, turned, made, *grads))
    assert (grads[1] == 2100).all()
