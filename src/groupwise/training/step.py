"""One step of GRPO, as the paper has it (DeepSeekMath, arXiv 2402.03300, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from groupwise.learner.algorithm import Algorithm
from groupwise.learner.learner import Learner
from groupwise.learner.world import ALONE, World
from groupwise.rewards import TrainerState
from groupwise.rollouts.rollouts import Rollouts
from groupwise.training.problems import Problems
from groupwise.training.report import StepReport
from groupwise.training.selection import masked, select
from groupwise.types import Group


async def grpo_step(
    problems: Problems,
    wanted: int,
    *,
    rollouts: Rollouts,
    learner: Learner,
    algorithm: Algorithm,
    state: TrainerState,
    report: StepReport,
) -> list[Group]:
    """Sample G rollouts per problem, compare each with its group, move the policy. A group is never torn apart.

    Returns all groups that were sampled; those that the algorithm dropped have no advantages.
    """
    # {o_1 .. o_G} ~ pi_old(. | q), r_i = R(q, o_i), for `wanted` problems, or until so many groups say something
    selected = await select(problems, wanted, rollouts=rollouts, algorithm=algorithm, state=state, report=report)
    groups = selected.training
    penalties = learner.penalties(groups, sampler_is_exact=rollouts.exact)  # beta KL, where it is in r_i
    groups = with_advantages(groups, algorithm, penalties, learner.world)  # A_i = (r_i - mean r) / std r
    groups = masked(groups, algorithm)
    sampled = selected.trained(groups)
    report.observe_groups(sampled)
    with report.timed("learn"):
        report.observe_update(await learner.update(groups, sampler_is_exact=rollouts.exact))  # max J, mu times
    with report.timed("sync"):
        await rollouts.engine.load_weights(learner.weights())  # pi_old <- pi_theta
    return sampled


def with_advantages(
    groups: Sequence[Group],
    algorithm: Algorithm,
    penalties_QG: Sequence[Sequence[float]] | None = None,
    world: World = ALONE,
) -> list[Group]:
    """The same groups, each rollout with its advantage. Penalties are taken off the rewards that are compared, and the
    rewards themselves stay."""
    advantages_QG = algorithm.advantages(groups, penalties_QG, world)
    return [
        replace(group, rollouts=tuple(replace(r, advantage=a) for r, a in zip(group.rollouts, advantages, strict=True)))
        for group, advantages in zip(groups, advantages_QG, strict=True)
    ]
