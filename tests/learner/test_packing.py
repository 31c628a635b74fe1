"""Groups into micro-batches: every trained token exactly once, whole rollouts, and weights from the whole update."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groupwise.learner.packing import divide, pack, room_of, trained_tokens
from groupwise.maths.tables import bind
from groupwise.maths.weights import WEIGHTS
from toys import graded_group

CPU = torch.device("cpu")
token_mean, sequence_mean = bind(WEIGHTS, "token_mean", {}), bind(WEIGHTS, "sequence_mean", {})


def packed(groups, budget, weigh=token_mean, **settings):
    return pack(groups, weigh, token_budget=budget, device=CPU, **settings)


def numbered(*shapes, reward=1.0, advantage=1.0):
    """Groups of (prompt length, completion lengths), no token id twice in all of them; logprob = -id."""
    count = iter(range(10_000))
    groups = []
    for prompt, lengths in shapes:
        prompt_ids = [next(count) for _ in range(prompt)]
        branches = [([next(count) for _ in range(length)], reward) for length in lengths]
        group = graded_group(prompt_ids, *branches, advantage=advantage)
        groups.append(replace(group, rollouts=tuple(map(with_own_logprobs, group.rollouts))))
    return groups


def with_own_logprobs(rollout):
    logprobs = tuple(-float(token) for token in rollout.completion.token_ids)
    return replace(rollout, completion=replace(rollout.completion, logprobs=logprobs))


def shapes_of(batches):
    return [[(len(tree.trunk), tuple(map(len, tree.branches))) for tree in batch.trees] for batch in batches]


def test_whole_groups_up_to_the_budget_by_hand():
    groups = numbered((2, [3, 1]), (1, [2]), (4, [4, 4]))  # 6, 3 and 12 tokens
    assert shapes_of(packed(groups, 21)) == [[(2, (3, 1)), (1, (2,)), (4, (4, 4))]]
    assert shapes_of(packed(groups, 20)) == [[(2, (3, 1)), (1, (2,))], [(4, (4, 4))]]
    assert shapes_of(packed(groups, 12)) == [[(2, (3, 1)), (1, (2,))], [(4, (4, 4))]]
    assert shapes_of(packed(groups, 9)) == [[(2, (3, 1)), (1, (2,))], [(4, (4,))], [(4, (4,))]]
    assert shapes_of(packed(groups, 8)) == [[(2, (3, 1))], [(1, (2,))], [(4, (4,))], [(4, (4,))]]


def test_a_budget_that_nothing_fits_gives_one_rollout_at_a_time():
    groups = numbered((2, [3, 1]), (4, [4]))
    assert shapes_of(packed(groups, 1)) == [[(2, (3,))], [(2, (1,))], [(4, (4,))]]


@pytest.mark.parametrize(
    ("prompt", "budget", "sizes"),
    [
        (4, 20, [8]),  # 4 + 8 x 2
        (4, 12, [4, 4]),  # 4 + 4 x 2
        (10, 10, [5, 3]),  # beside the prompt as much as it has, and not one completion at a time
        (10, 14, [5, 3]),
        (100, 10, [5, 3]),  # beside a prompt that is longer than the budget as much as the budget has
        (100, 1, [1] * 8),
    ],
)
def test_a_long_prompt_is_not_computed_for_each_completion(prompt, budget, sizes):
    batches = packed(numbered((prompt, [2] * 8)), budget)
    assert shapes_of(batches) == [[(prompt, (2,) * size)] for size in sizes]


def test_what_is_left_of_a_cut_group_shares_its_micro_batch():
    groups = numbered((2, [5, 5, 1]), (1, [3]))  # 13 and 4 tokens
    assert shapes_of(packed(groups, 7)) == [[(2, (5,))], [(2, (5,))], [(2, (1,)), (1, (3,))]]


SHAPES = st.lists(
    st.tuples(st.integers(1, 6), st.lists(st.integers(1, 7), min_size=1, max_size=5)), min_size=1, max_size=5
)


@given(shapes=SHAPES, budget=st.integers(1, 60), data=st.data())
def test_every_graded_token_is_in_exactly_one_place(shapes, budget, data):
    groups = [
        replace(
            group,
            rollouts=tuple(
                replace(
                    r, reward=data.draw(st.sampled_from([None, 1.0])), advantage=data.draw(st.sampled_from([0.0, 2.0]))
                )
                for r in group.rollouts
            ),
        )
        for group in numbered(*shapes)
    ]
    batches = packed(groups, budget, first_place=100)
    graded = [r for group in groups for r in group.rollouts if r.reward is not None]
    everything = [token for r in graded for token in r.completion.token_ids]
    assert [t for b in batches for tree in b.trees for branch in tree.branches for t in branch] == everything
    assert [x for b in batches for x in b.places_T.tolist()] == list(range(100, 100 + len(everything)))
    assert trained_tokens(groups) == len(everything)
    assert [-x for b in batches for x in b.sampled_T.tolist()] == everything
    assert [x for b in batches for x in b.advantages_T.tolist()] == [
        r.advantage for r in graded for _ in r.completion.token_ids
    ]
    trunks = {
        group.rollouts[i].completion.token_ids: group.prompt_ids for group in groups for i in range(len(group.rollouts))
    }
    for batch in batches:
        branches = [branch for tree in batch.trees for branch in tree.branches]
        assert all(trunks[branch] == tree.trunk for tree in batch.trees for branch in tree.branches)
        assert batch.rollout_T.tolist() == [i for i, branch in enumerate(branches) for _ in branch]
        size = sum(len(tree.trunk) + tree.predicted for tree in batch.trees)
        room = budget if len(batch.trees) > 1 else room_of(len(batch.trees[0].trunk), budget)
        assert size <= room or len(branches) == 1
        assert all(tree.branches and all(tree.branches) for tree in batch.trees)


@given(shapes=SHAPES, budget=st.integers(1, 60))
def test_the_weights_are_those_of_the_whole_update_however_it_is_cut(shapes, budget):
    groups = numbered(*shapes)
    lengths = [length for _, branches in shapes for length in branches]
    weights = [
        x for batch in packed(groups, budget, sequence_mean, dtype=torch.float64) for x in batch.weights_T.tolist()
    ]
    assert weights == pytest.approx([1 / len(lengths) / length for length in lengths for _ in range(length)], rel=1e-12)


def test_an_ungraded_rollout_counts_as_empty():
    group = graded_group([1, 2], ([3, 4], 1.0), ([5, 6, 7], None), ([8], 0.0), advantage=1.0)
    (batch,) = packed([group], 100)
    assert batch.trees[0].branches == ((3, 4), (8,))
    assert batch.weights_T.tolist() == pytest.approx([1 / 3] * 3)
    assert batch.places_T.tolist() == [0, 1, 2]
    (batch,) = packed([group], 100, sequence_mean)
    assert batch.weights_T.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 3])  # three rollouts, one of them empty


def test_silent_rollouts_count_but_are_not_computed():
    group = graded_group([1, 2], ([3, 4], 1.0), ([5, 6, 7], 1.0), ([8], 1.0))
    first, second, third = group.rollouts
    group = replace(group, rollouts=(first, replace(second, advantage=-0.5), third))
    (batch,) = packed([group], 100, skip_silent=True)
    assert batch.trees[0].branches == ((5, 6, 7),)
    assert batch.weights_T.tolist() == pytest.approx([1 / 6] * 3)
    assert batch.places_T.tolist() == [2, 3, 4]
    assert packed([group], 100)[0].trees[0].branches == ((3, 4), (5, 6, 7), (8,))
    assert packed([graded_group([1], ([2], 1.0), ([3], 1.0))], 100, skip_silent=True) == []
    assert packed([graded_group([1], ([2], None), ([3], None))], 100) == []
    assert packed([], 100) == []


@pytest.mark.parametrize(
    ("count", "parts", "sizes"),
    [(7, 3, [3, 2, 2]), (6, 3, [2, 2, 2]), (2, 3, [1, 1]), (5, 1, [5]), (1, 1, [1]), (0, 2, [])],
)
def test_groups_are_divided_evenly_and_in_order(count, parts, sizes):
    groups = numbered(*[(1, [1])] * count)
    divided = divide(groups, parts)
    assert [len(part) for part in divided] == sizes
    assert [group for part in divided for group in part] == groups


def test_numbers_keep_the_precision_of_the_loss():
    group = graded_group([1], ([2, 3, 4], 1.0), advantage=0.1)
    (exact,) = packed([group], 10, dtype=torch.float64)
    assert exact.weights_T.tolist() == [1 / 3] * 3
    assert exact.advantages_T.tolist() == [0.1] * 3
    assert packed([group], 10)[0].weights_T.dtype is torch.float32
