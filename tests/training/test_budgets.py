"""When a run has had enough."""

import pytest

from groupwise.config.budgets import BudgetsSection
from groupwise.training.budgets import Budgets


def rows(*accuracies):
    return [{"step": i, "accuracy": accuracy} for i, accuracy in enumerate(accuracies)]


STEPS = [{"step": 1, "sampled_tokens": 600.0}, {"step": 2, "sampled_tokens": 400.0}]


@pytest.mark.parametrize(
    ("settings", "accuracies", "said"),
    [
        ({}, (0.1, 0.1, 0.1), None),
        ({"sampled_tokens": 1000}, (), "1,000 tokens were sampled"),
        ({"sampled_tokens": 1001}, (), None),
        ({"accuracy": 0.9}, (0.95, 0.89), None),  # the newest counts
        ({"accuracy": 0.9}, (0.5, 0.9), "0.900 has reached"),
        ({"patience": 2}, (0.5, 0.6, 0.6), None),
        ({"patience": 2}, (0.5, 0.6, 0.6, 0.55), "not been better than 0.600 for 2 evaluations"),
        ({"patience": 1}, (), None),
    ],
)
def test_tokens_and_accuracy(settings, accuracies, said):
    met = Budgets(BudgetsSection(**settings)).met(STEPS, rows(*accuracies))
    assert (met is None) if said is None else said in met


def test_hours_count_earlier_attempts():
    clock = iter([100.0, 1800.0, 1901.0, 1901.0]).__next__
    budgets = Budgets(BudgetsSection(hours=1.0), spent_seconds=1800.0, clock=clock)
    assert budgets.met([], []) is None  # 1800 + 1700 s
    assert budgets.met([], []).startswith("1.00 hours have passed")


def test_an_evaluation_without_gold_answers_ends_nothing():
    assert Budgets(BudgetsSection(accuracy=0.1, patience=1)).met([], [{"step": 0, "reward": 1.0}] * 3) is None
