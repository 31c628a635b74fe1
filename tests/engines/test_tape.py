"""A computation is recorded and played again: the same arithmetic for other inputs, or a refusal."""

import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from groupwise.engines.tape import Replayed, UnrecordableError, record

OLD, NEW = torch.arange(6.0).reshape(2, 3), torch.tensor([[3.0, -1.0, 0.5], [2.0, 7.0, -4.0]])
WEIGHT = torch.linspace(-1, 1, 9).reshape(3, 3)


def as_it_is(function):
    return function


def in_place_on_what_is_its_own(x, hide):
    y = x.clone()
    y += 1
    y[0] = x[1]
    y[:, 1].mul_(x[0, 2])
    torch.add(x[1], 3, out=y[1])
    return torch.sub(y, 1, out=torch.empty(2, 3))


def tuples(x, hide):
    left, right = x.split([1, 2], -1)
    values, where = x.topk(2, -1)
    return torch.cat([left * 2, right, values, where.to(x.dtype), x.max(-1, keepdim=True).values], dim=-1)


def lists_and_keywords(x, hide):
    stacked = torch.stack([x, torch.cat((x[:1], x[1:] * 2), dim=0)], dim=1)
    normed = F.layer_norm(stacked, (3,), weight=x[0], bias=x[1])
    return torch.where(input=normed, condition=normed > x[:, None], other=torch.zeros(()))


def loops_over_rows(x, hide):
    total = torch.zeros(3)
    for row in x:
        total = total + row * len(x)
    first, second = x
    return total + first - second


def module(x, hide):
    with torch.no_grad():
        y = LAYER(x)
    return F.silu(y, inplace=False) * x.float() + torch.arange(3) + torch.tensor(x.shape[1])


LAYER = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
COMPUTATIONS = [
    lambda x, hide: (1 - x) ** 2 @ WEIGHT,
    lambda x, hide: x.reshape(x.size(1), -1).T.contiguous().softmax(dim=-1),
    lambda x, hide: x[torch.tensor([1, 0, 1])] + x[:, [2]].sum() - x[..., None, 0].sum(),
    lambda x, hide: x.masked_fill(x > 1, 0.5),
    lambda x, hide: torch.einsum("ij,kj->ik", x, x),
    lambda x, hide: torch.ops.aten.mul.Tensor(x, x),
    lambda x, hide: x,
    in_place_on_what_is_its_own,
    tuples,
    lists_and_keywords,
    loops_over_rows,
    module,
]


@pytest.mark.parametrize("function", COMPUTATIONS)
def test_played_for_other_inputs_it_is_the_same_computation(function):
    tape, result = record(function, OLD.clone())
    assert torch.equal(result, function(OLD.clone(), as_it_is))
    for x in (NEW, OLD, NEW * 3):
        assert torch.equal(tape(x.clone()), function(x.clone(), as_it_is))


def test_several_inputs_each_in_its_place():
    tape, _ = record(lambda x, i, y, hide: x[i] - y * i, OLD, torch.tensor([0, 1, 1]), torch.ones(3))
    assert torch.equal(tape(NEW, torch.tensor([1, 1, 0]), OLD[1]), NEW[[1, 1, 0]] - OLD[1] * torch.tensor([1, 1, 0]))


def test_weights_that_change_in_place_are_seen():
    layer = nn.Linear(3, 2)
    tape, before = record(lambda x, hide: layer(x), OLD)
    with torch.no_grad():
        layer.weight *= 2
        layer.bias.data = torch.tensor([5.0, 6.0])  # what loading a checkpoint into it does
    assert torch.equal(tape(OLD), layer(OLD))
    assert not torch.equal(tape(OLD), before)


LOOKS = {
    "item": lambda x, hide: x * x.sum().item(),
    "float": lambda x, hide: x * float(x[0, 1]),
    "bool": lambda x, hide: x if x.any() else -x,
    "comparison": lambda x, hide: x if x[0, 0] == 0 else -x,
    "tolist": lambda x, hide: x * x.tolist()[1][1],
    "numpy": lambda x, hide: torch.from_numpy(x.numpy() * 2),
    "equal": lambda x, hide: x * torch.equal(x, x + 1),
    "index": lambda x, hide: x[x.argmax()],
    "range": lambda x, hide: sum((x * i for i in range(int(x[1, 2]))), x),
}
SHAPED = {
    "nonzero": lambda x, hide: x.nonzero(),
    "where": lambda x, hide: torch.where(x > 1)[0],
    "mask": lambda x, hide: x[x > 1],
    "mask in a tuple": lambda x, hide: x[:, x[0] > 1],
    "masked_select": lambda x, hide: x.masked_select(x > 1),
    "unique": lambda x, hide: torch.unique(x),
    "repeat_interleave": lambda x, hide: x.repeat_interleave(x[:, 0].long(), 0),
    "slice": lambda x, hide: x[:, : x[1, 0].long()],
    "arange": lambda x, hide: torch.arange(x[1, 2]),
    "tensor_split": lambda x, hide: x.tensor_split(x[0, 1:].long(), 1)[0],
}


@pytest.mark.parametrize("name", [name for name in LOOKS if name != "index"])
def test_what_looks_at_values_is_refused(name):
    with pytest.raises(UnrecordableError, match="looks at the values of a tensor"):
        record(LOOKS[name], OLD.clone())


@pytest.mark.parametrize("name", SHAPED)
def test_what_is_shaped_by_values_is_refused(name):
    with pytest.raises(UnrecordableError, match="depends on values"):
        record(SHAPED[name], OLD.clone())


def test_an_index_that_is_a_tensor_is_no_look():
    tape, _ = record(lambda x, hide: x[x[:, 0].argmax()], OLD)
    assert torch.equal(tape(NEW), NEW[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda memory, x: memory.add_(1),
        lambda memory, x: memory.__setitem__(0, 1.0),
        lambda memory, x: torch.add(x, 1, out=memory),
        lambda memory, x: memory.__iadd__(x),
    ],
)
@pytest.mark.parametrize("met_before", [False, True])
def test_what_outlives_the_computation_must_not_be_changed(change, met_before):
    memory = torch.zeros(2, 3)

    def function(x, hide):
        y = x + memory if met_before else x
        change(memory, x)
        return y

    with pytest.raises(UnrecordableError, match="outlives the computation"):
        record(function, OLD)


def test_a_result_from_elsewhere_is_refused():
    with pytest.raises(UnrecordableError, match="no function of torch"):
        record(lambda x, hide: WEIGHT, OLD)


def test_what_is_hidden_is_one_operation_with_side_effects_and_may_look():
    seen = []

    def note(layer, x, *, factor):
        seen.append((layer, x.sum().item()))
        return x * factor

    def function(x, hide):
        hide(note)("not needed", x + 1, factor=2)
        return hide(note)("needed", x, factor=3) + 1

    tape, _ = record(function, OLD)
    seen.clear()
    assert torch.equal(tape(NEW), NEW * 3 + 1)
    assert seen == [("not needed", float(NEW.sum()) + 6), ("needed", float(NEW.sum()))]
    assert len(tape._calls) == 4


def test_what_nobody_needs_is_not_played_and_places_are_shared():
    def function(x, hide):
        for _ in range(50):
            x = x * 1.01
            _ = x + 1
        return x

    tape, _ = record(function, OLD)
    assert len(tape._calls) == 50
    assert tape._places.count(None) <= 3, "others hold the number 1.01"


def test_a_result_is_freed_after_its_last_use():
    alive, most = weakref.WeakSet(), []

    def noted(x):
        y = x + 1
        alive.add(y)
        most.append(len(alive))
        return y

    def function(x, hide):
        for _ in range(20):
            x = hide(noted)(x)
        return x

    tape = record(function, OLD)[0]
    most.clear()
    assert torch.equal(tape(NEW), NEW + 20)
    assert max(most) <= 2


def test_a_result_that_is_there_early_is_still_there_at_the_end():
    def function(x, hide):
        y = x + 1
        hide(lambda z: z * 0)(x * 2)
        hide(lambda z: z * 0)(x * 3)
        return y

    tape, _ = record(function, OLD)
    assert torch.equal(tape(NEW), NEW + 1)


def test_nothing_is_kept_between_two_plays():
    tape, _ = record(lambda x, hide: (x * 2) @ WEIGHT, OLD)
    x = NEW.clone()
    kept = weakref.ref(x), weakref.ref(tape(x))
    del x
    assert [reference() for reference in kept] == [None, None]


# --- recorded as shapes come up -------------------------------------------------------------------------------------


class Counted:
    """Counts how often Python runs."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, x, hide):
        self.calls += 1
        return self.function(x)


def test_each_shape_is_recorded_once_and_tried_out_once():
    counted = Counted(lambda x: x * 2 + 1)
    replayed = Replayed(counted)
    for rows in (3, 5):
        for value in range(6):
            assert torch.equal(replayed(torch.full((rows, 2), float(value))), torch.full((rows, 2), 2.0 * value + 1))
    assert (counted.calls, replayed.why_not) == (4, "")


def test_other_strides_and_dtypes_are_other_shapes():
    """`contiguous` had nothing to do when this was recorded."""
    replayed = Replayed(lambda x, hide: x.contiguous().float().view(-1) + x.float().reshape(-1))
    for _ in range(3):
        for x in (torch.eye(3), torch.arange(9.0).view(3, 3).t(), torch.arange(9).view(3, 3)):
            assert torch.equal(replayed(x), x.reshape(-1) * 2.0)


def test_what_cannot_be_recorded_is_called():
    counted = Counted(lambda x: x * x.max().item())
    replayed = Replayed(counted)
    for value in range(1, 5):
        assert replayed(torch.full((2,), float(value))).tolist() == [value**2] * 2
    assert counted.calls == 5, "once for the attempt"
    assert replayed.why_not == "item looks at the values of a tensor"


def test_a_value_that_stands_fixed_in_the_tape_shows_when_it_is_tried_out():
    """`Parameter` is no function of torch, so what it makes looks like a weight of old."""
    replayed = Replayed(lambda x, hide: nn.Parameter(x, requires_grad=False) * 2)
    for value in range(5):
        assert replayed(torch.full((2,), float(value))).tolist() == [2 * value] * 2
    assert replayed.why_not == "played for other inputs, the recorded operations give something else"


def test_what_python_computes_from_its_own_state_shows_too():
    steps = []

    def function(x, hide):
        steps.append(0)
        return x * len(steps)

    replayed = Replayed(function)
    assert [float(replayed(torch.ones(1))) for _ in range(4)] == [1, 2, 3, 4]
