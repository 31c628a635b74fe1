"""How often the host would wait for a GPU: a few times in a micro-batch, however many tokens it has."""

import pytest
from toy_learner import algorithm_of, learner_of, policy_of, ragged_groups, update

from frozen import Waits


def waited(monkeypatch, rollouts, *, exact, **settings):
    """In an update of as many micro-batches."""
    algorithm = algorithm_of(**settings)
    learner = learner_of(policy_of(), algorithm, token_budget=1)
    groups = ragged_groups(algorithm, sizes=((4, rollouts),), ungraded=False)
    update(learner, groups, exact=exact)  # what is done once
    waits = Waits(monkeypatch)
    with waits:
        update(learner, groups, exact=exact)
    return waits.count


@pytest.mark.parametrize(
    ("settings", "exact", "most"),
    [
        ({}, True, 3),  # terms, the loss, and what is reported
        ({"beta": 0.1}, True, 4),  # the reference's logprobs, before
    ],
)
def test_a_micro_batch_waits_a_few_times(settings, exact, most, monkeypatch):
    few, many = (waited(monkeypatch, rollouts, exact=exact, **settings) for rollouts in (4, 14))
    assert 1 <= (many - few) / 10 <= most
