"""What a step's metrics say, worked out by hand."""

import math
from dataclasses import replace

import pytest

from groupwise.config.presets import PRESETS
from groupwise.config.sections import AlgorithmSection
from groupwise.learner.algorithm import Algorithm
from groupwise.training.report import StepReport
from groupwise.training.step import with_advantages
from groupwise.types import Completion, Group, Problem, Rollout

ALGORITHM = Algorithm.of(AlgorithmSection(**PRESETS["grpo"]), 8)


def rollout(reward, length=1, reason="stop", **parts):
    completion = Completion((7,) * length, (-0.5,) * length, reason, "x")
    return Rollout(completion, parts or {"judge": reward}, reward)


def group(*rollouts):
    return Group(Problem("p", "1+1="), (5, 6), rollouts)


def metrics_of(*groups):
    report = StepReport()
    report.observe_groups(with_advantages(groups, ALGORITHM))
    return report.metrics()


def test_every_rollout_gets_the_advantage_of_its_place():
    groups = [group(rollout(1.0), rollout(None), rollout(0.0)), group(rollout(2.0), rollout(2.0))]
    first, second = with_advantages(groups, ALGORITHM)
    # (1 - 0.5) / (sqrt(0.5) + 1e-4)
    assert [r.advantage for r in first.rollouts] == pytest.approx([0.70701, 0.0, -0.70701], abs=1e-5)
    assert [r.advantage for r in second.rollouts] == [0.0, 0.0]
    assert [replace(r, advantage=0.0) for r in first.rollouts] == list(groups[0].rollouts)


def test_the_metrics_of_groups_by_hand():
    metrics = metrics_of(
        group(rollout(1.0, 3), rollout(0.0, 5, "length"), rollout(None, 2), rollout(0.5, 8, "length")),
        group(*[rollout(1.0, 2)] * 4),
        group(*[rollout(None, 1)] * 4),
    )
    assert metrics["reward"] == pytest.approx((1.5 + 4) / 7)
    assert metrics["reward_std"] == pytest.approx((0.5 + 0 + 0) / 3)  # std of 1, 0, 0.5 is 0.5
    assert metrics["zero_signal"] == pytest.approx(2 / 3)
    assert metrics["ungraded"] == pytest.approx(5 / 12)
    assert metrics["truncated"] == pytest.approx(2 / 12)
    assert metrics["looped"] == 0
    assert metrics["length"] == pytest.approx((18 + 8 + 4) / 12)
    assert (metrics["length_max"], metrics["sampled_tokens"]) == (8.0, 30.0)
    assert metrics["rewards/judge/mean"] == pytest.approx(5.5 / 7)


def test_parts_are_told_one_by_one():
    metrics = metrics_of(
        group(rollout(3.0, a=1.0, b=2.0, c=None), rollout(1.0, a=1.0, b=None, c=None)),
        group(rollout(0.0, a=0.0, b=0.0, c=None), rollout(None, a=None, b=None, c=None)),
    )
    assert metrics["rewards/a/mean"] == pytest.approx(2 / 3)
    assert metrics["rewards/a/std"] == pytest.approx(math.sqrt(1 / 3))
    assert (metrics["rewards/b/mean"], metrics["rewards/b/std"]) == (1.0, pytest.approx(math.sqrt(2)))
    assert not any(name.startswith("rewards/c/") for name in metrics)


def test_a_step_that_nobody_graded_has_no_reward():
    metrics = metrics_of(group(rollout(None), rollout(None)))
    assert math.isnan(metrics["reward"])
    assert (metrics["zero_signal"], metrics["ungraded"], metrics["reward_std"]) == (1.0, 1.0, 0.0)


def test_seconds_add_up_by_phase():
    report = StepReport()
    for phase in ("sample", "learn", "learn"):
        with report.timed(phase):
            pass
    with pytest.raises(ZeroDivisionError), report.timed("grade"):
        _ = 1 / 0
    metrics = report.metrics()
    phases = [metrics[f"seconds/{phase}"] for phase in ("sample", "learn", "grade")]
    assert all(seconds > 0 for seconds in phases)
    assert metrics["step_seconds"] == pytest.approx(sum(phases))


def test_what_a_reward_logs_never_hides_what_the_step_measured():
    report = StepReport()
    report.observe_groups([group(rollout(1.0), rollout(0.0))])
    report.graded.noted |= {"reward": [7.0, 9.0], "judge/sure": [0.25], "step": [3.0]}
    metrics = report.metrics()
    assert (metrics["reward"], metrics["reward_2"]) == (0.5, 8.0)
    assert (metrics["judge/sure"], metrics["step_2"]) == (0.25, 3.0)
    assert "step" not in metrics
