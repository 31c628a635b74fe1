"""Every surrogate, advantage, weight, correction and filter through the real learner and a real model in float64: the
order of groups and the token budget change the gradient by nothing but rounding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_learner import (
    Watched,
    advantaged,
    algorithm_of,
    learner_of,
    perturb,
    policy_of,
    ragged_groups,
    sampled_by,
    update,
)

from groupwise.maths.advantages import ADVANTAGES
from groupwise.maths.corrections import CORRECTIONS
from groupwise.maths.filters import FILTERS
from groupwise.maths.ratios import RATIOS
from groupwise.maths.surrogates import SURROGATES
from groupwise.maths.weights import WEIGHTS

SIZES = ((4, 4), (1, 3), (7, 4), (3, 2))
POLICY = policy_of()
GROUPS = sampled_by(POLICY, ragged_groups(algorithm_of(), sizes=SIZES), off_by=0.15)
START = {name: parameter.detach().clone() for name, parameter in POLICY.trainable().items()}

CASES = {
    **{f"advantage {name}": {"advantage": name} for name in ADVANTAGES if name != "maxrl"},
    **{f"surrogate {name}": {"surrogate": name} for name in SURROGATES},
    **{f"ratio {name}": {"ratio": name} for name in RATIOS},
    **{f"weights {name}": {"weights": name} for name in WEIGHTS},
    **{f"correction {name}": {"correction": name} for name in CORRECTIONS},
    **{f"filter {name}": {"filters": [name]} for name in FILTERS},
    "sequence and a bonus": {"ratio": "sequence", "surrogate": "sapo", "entropy": 0.1, "beta": 0.2, "kl_ratio": True},
    "all at once": {
        "surrogate": "clip_cov",
        "correction": "token_mask",
        "filters": ["top_entropy", "off_policy_mask"],
        "entropy": 0.1,
        "beta": 0.2,
        "weights": "prompt_mean",
        "settings": {"cov_share": 0.2, "cov_low": 0.01, "top_share": 0.6},
    },
    "maxrl": {"advantage": "maxrl"},
}
CASES["advantage pass_at_k"] |= {"settings": {"k": 2}}
COVARIANCE = {"settings": {"cov_share": 0.2, "cov_low": 0.01}}
CASES["surrogate clip_cov"] |= COVARIANCE
CASES["surrogate kl_cov"] |= {"settings": {"cov_share": 0.2}}
CASES["filter geometric_rejection"] |= {"settings": {"geometric_low": 0.9, "geometric_high": 1.05}}


def gradients(algorithm, groups, **settings):
    """Of two passes, so that the second one is off policy; the policy starts away from its reference each time."""
    for name, parameter in POLICY.trainable().items():
        parameter.data.copy_(START[name])
    learner = learner_of(POLICY, algorithm, passes=2, optimizer={"lr": 3e-2}, **settings)
    perturb(POLICY, 0.05)
    watched = Watched(learner)
    update(learner, groups, exact=False)
    return watched.gradients


def prepared(case):
    algorithm = algorithm_of(**CASES[case])
    groups = GROUPS
    if case == "maxrl":
        groups = sampled_by(POLICY, ragged_groups(algorithm_of(), sizes=SIZES, positive=True), off_by=0.15)
    return algorithm, advantaged(groups, algorithm)


EXPECTED = {}


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=3)
@given(order=st.permutations(range(len(SIZES))), budget=st.sampled_from([1, 17, 40, 10_000]))
def test_neither_order_nor_budget_changes_the_gradient(case, order, budget):
    algorithm, groups = prepared(case)
    if case not in EXPECTED:
        EXPECTED[case] = gradients(algorithm, groups)
        assert all(max(g.abs().max() for g in update_.values()) > 1e-5 for update_ in EXPECTED[case])
    ours = gradients(algorithm, [groups[i] for i in order], token_budget=budget)
    for step, (mine, expected) in enumerate(zip(ours, EXPECTED[case], strict=True)):
        for name, gradient in expected.items():
            assert torch.allclose(mine[name], gradient, rtol=0, atol=1e-10), (step, name)
