"""Gradients of a vocabulary's tables: the same where autograd adds them up and where they are added in place."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn, tensor
from torch.utils._python_dispatch import TorchDispatchMode

from architectures import model_of, policy_of
from groupwise.models import parts, tiles
from groupwise.models.tables import adding_up, gradient_of, rows_of
from groupwise.models.trees import Tree

TREES = [Tree((5, 9, 5), ((7, 8), (6,))), Tree((4,), ((9, 9, 9, 5), (3, 2)))]


def table(*rows, padding=None):
    made = nn.Embedding(len(rows), len(rows[0]), padding_idx=padding)
    made.weight = nn.Parameter(tensor(rows))
    return made


def test_the_gradient_of_rows_by_hand():
    embedding = table([1.0, 2.0], [3.0, 4.0], [5.0, 6.0])
    out = rows_of(embedding)(tensor([[2, 0, 2]]))
    assert out.tolist() == [[[5.0, 6.0], [1.0, 2.0], [5.0, 6.0]]]
    with adding_up():
        (out * tensor([[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]])).sum().backward()
    assert embedding.weight.grad.tolist() == [[2.0, 20.0], [0.0, 0.0], [4.0, 40.0]]


@pytest.mark.parametrize("in_place", [True, False])
def test_padding_learns_nothing(in_place):
    embedding = table([1.0], [2.0], [3.0], padding=1)
    out = rows_of(embedding)(tensor([1, 2, 1, 0, 2]))
    if in_place:
        with adding_up():
            out.sum().backward()
    else:
        out.sum().backward()
    assert embedding.weight.grad.tolist() == [[1.0], [0.0], [2.0]]


def test_micro_batches_add_up_in_the_tensor_that_is_there():
    embedding = table([0.0], [0.0])
    with adding_up():
        rows_of(embedding)(tensor([0, 1, 1])).sum().backward()
        first = embedding.weight.grad.data_ptr()
        rows_of(embedding)(tensor([1])).sum().backward()
    assert embedding.weight.grad.tolist() == [[1.0], [3.0]]
    assert embedding.weight.grad.data_ptr() == first


def test_a_gradient_that_was_asked_for_is_handed_over():
    embedding = table([0.0], [0.0])
    (gradient,) = torch.autograd.grad(rows_of(embedding)(tensor([1])).sum(), [embedding.weight])
    assert gradient.tolist() == [[0.0], [1.0]]
    assert embedding.weight.grad is None


@pytest.mark.parametrize("hook", ["register_hook", "register_post_accumulate_grad_hook"])
def test_hooks_see_their_gradient(hook):
    embedding, seen = table([0.0], [0.0]), []
    getattr(embedding.weight, hook)(lambda given: seen.append(1))
    with adding_up():
        rows_of(embedding)(tensor([1])).sum().backward()
    assert seen == [1]
    assert embedding.weight.grad.tolist() == [[0.0], [1.0]]


class Scaled(nn.Embedding):
    """As Gemma's: more than rows of a table."""

    def forward(self, ids):
        return 2 * super().forward(ids)


@pytest.mark.parametrize(
    "odd",
    [
        Scaled(3, 2),
        nn.Embedding(3, 2, max_norm=1.0),
        nn.Embedding(3, 2, scale_grad_by_freq=True),
        nn.Embedding(3, 2, sparse=True),
        nn.Linear(3, 2),
    ],
)
def test_what_is_more_than_a_table_is_left_alone(odd):
    assert rows_of(odd) is None


def test_what_is_no_parameter_is_handed_its_gradient():
    with adding_up():
        assert gradient_of(torch.ones(2), lambda into: into.add_(3.0)).tolist() == [3.0, 3.0]


class TablesMade(TorchDispatchMode):
    """What makes tensors as large as a table."""

    def __init__(self, shape):
        super().__init__()
        self.by, self._shape = [], shape

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.shape == self._shape and not func._schema.is_mutable:
            aliases = any(a.alias_info is not None for a in func._schema.returns)
            self.by += [] if aliases else [str(func)]
        return out


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.skipif(not parts.fits(torch.zeros(1)), reason="no C compiler here")
def test_a_policy_learns_the_same_and_makes_no_more_tables(tied, monkeypatch):
    monkeypatch.setattr(tiles, "WORTH_TILES", 1)
    policy = policy_of(model_of("qwen2", tie_word_embeddings=tied))
    shape = policy.model.get_input_embeddings().weight.shape

    def gradients(way):
        policy.model.zero_grad(set_to_none=True)
        made = []
        for trees in (TREES[:1], TREES[1:], TREES):  # added up over three micro-batches
            with policy.training(), way(), TablesMade(shape) as tables:
                logprobs_T, _ = policy.logprobs(trees)
                (logprobs_T * torch.arange(1, len(logprobs_T) + 1)).sum().backward()
            made.append(len(tables.by))
        return {name: p.grad.clone() for name, p in policy.trainable().items()}, made

    usual, usually_made = gradients(nullcontext)
    in_place, made = gradients(adding_up)
    assert made == [1 if tied else 2, 0, 0]  # where the gradients add up
    assert min(usually_made) >= 2
    assert usual.keys() == in_place.keys()
    for name, gradient in usual.items():
        assert torch.allclose(gradient, in_place[name], rtol=1e-5, atol=1e-5 * float(gradient.abs().max())), name
