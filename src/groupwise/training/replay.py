"""Compute a recorded step again from the run folder, and say where the record and the computation differ.

    for compared in replay_step(run, 7): print(compared)
    # rewards      64 compared, all the same
    # advantages   64 compared, 1 differs: group 2, completion 5: 0.31 was recorded, 0.29 is computed

Rewards need the record alone, and so do most advantages. Completions, loss and gradient norm need the weights before
the step: see `retrace.py`. A step that was refused (`bad_step/`) has its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file

from groupwise.engines.embedded import EmbeddedEngine
from groupwise.errors import RunError
from groupwise.learner.finite import NonFiniteError
from groupwise.learner.learner import Learner
from groupwise.rewards import TrainerState
from groupwise.rollouts.grade import graded
from groupwise.runs.folder import RunFolder
from groupwise.runs.rollouts import RolloutRow, read_rollouts
from groupwise.training.build import Parts, names_code
from groupwise.training.guards import FOLDER, bad_steps
from groupwise.training.loop import learner_of, rollouts_of
from groupwise.training.retrace import retrace
from groupwise.training.selection import masked
from groupwise.training.sft import warm_learner_of
from groupwise.training.step import with_advantages
from groupwise.training.trainer import Trainer, run_to_end
from groupwise.types import Completion, FinishReason, Group, Outcome, Problem, Rollout

_ROUNDING = 1e-6
"""Losses and norms are sums in another order where the micro-batches were cut elsewhere."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One kind of number: how many were compared, and the first that differ, in words."""

    what: str
    count: int
    different: tuple[str, ...] = ()
    differing: int = 0
    note: str = ""

    @property
    def same(self) -> bool:
        """Whether all were."""
        return not self.differing


def replay_step(run: RunFolder, step: int) -> Iterator[Compared]:
    """Everything that can be computed again of a step."""
    steps = run.rollout_steps()
    if step not in steps:
        known = f"; it has those of the steps {steps[0]} to {steps[-1]}" if steps else ", nor of any other"
        raise RunError(f"{run.path} has no rollouts of step {step}{known}")
    rows = {int(row.get("step") or 0): row for row in run.metrics.read()}
    parts = _parts(run)
    recorded = _groups(run.rollouts(step), parts)
    kept = _selected(run.rollouts(step))
    state = TrainerState(
        step, parts.recipe.train.steps, 0.0, [cast(dict[str, float], rows[n]) for n in rows if n < step]
    )
    loop_reward = parts.recipe.loops.reward
    again = run_to_end(graded(recorded, parts.rewards, trainer_state=state, loop_reward=loop_reward))
    yield _rewards(recorded, again)
    engine = EmbeddedEngine(parts.policy, parts.recipe.engine.max_rows)
    retraced = retrace(run, parts, lambda of: _training(run, of, parts), before=step, exact=engine.exact)
    yield Compared("weights", 0, note=f"through {retraced.how}")
    training = [group for place, group in enumerate(recorded) if place in kept]
    rollouts = rollouts_of(parts, engine)
    sampled = run_to_end(rollouts.sample([group.problem for group in recorded], step))
    yield _completions(recorded, sampled)
    yield from _learnt(parts, retraced.learner, training, rows.get(step, {}), exact=engine.exact)


def replay_bad_step(run: RunFolder, step: int) -> Compared:
    """Do a refused step again: the same number has to be refused."""
    if step not in bad_steps(run):
        known = ", ".join(map(str, bad_steps(run))) or "none"
        raise RunError(f"{run.path} has no refused step {step}; it has {known}")
    folder = run.path / FOLDER / f"{step:06d}"
    parts = _parts(run)
    warm = run.identity.get("verb") == "sft"
    learner = (
        warm_learner_of(parts) if warm else learner_of(parts)
    )  # before the weights: the reference is where training began
    _put(parts, folder / "weights.safetensors")
    groups = _groups(read_rollouts(folder / "rollouts.parquet"), parts)
    engine = EmbeddedEngine(parts.policy)
    try:
        run_to_end(learner.update(groups, sampler_is_exact=warm or engine.exact))
    except NonFiniteError as error:
        return Compared("refusal", 1, note=f"refused again: {error}")
    return Compared("refusal", 1, ("the update that was refused can be made now",), 1)


def _parts(run: RunFolder) -> Parts:
    loaded = run.recipe()
    if names_code(loaded.recipe):
        run.check_own()
    parts = Trainer.from_recipe(loaded).parts
    if parts.task.environment is not None:
        raise RunError(
            f"{run.path} held conversations with an environment, whose answers are not recorded apart from the model's "
            "words: its steps cannot be computed again"
        )
    return parts


def _training(run: RunFolder, step: int, parts: Parts) -> list[Group]:
    """The groups that trained in a step, as they were recorded."""
    rows = run.rollouts(step)
    kept = _selected(rows)
    return [group for place, group in enumerate(_groups(rows, parts)) if place in kept]


def _learnt(
    parts: Parts, learner: Learner, training: Sequence[Group], metrics: Any, *, exact: bool
) -> Iterator[Compared]:
    """Compared with each other and learnt from anew."""
    penalties = learner.penalties(training, sampler_is_exact=exact)
    groups = masked(with_advantages(training, parts.algorithm, penalties), parts.algorithm)
    yield _advantages(training, groups)
    if metrics.get("skipped"):
        yield Compared("loss", 0, note="this step was refused and skipped: see --bad-step")
        return
    found = run_to_end(learner.update(groups, sampler_is_exact=exact)).metrics()
    for name in ("loss", "grad_norm"):
        was, now = metrics.get(name), found[name]
        far = was is None or not math.isclose(was, now, rel_tol=_ROUNDING, abs_tol=_ROUNDING)
        yield Compared(name, 1, (f"{was} was recorded, {now} is computed",) if far else (), int(far))


def _rewards(recorded: Sequence[Group], again: Sequence[Group]) -> Compared:
    pairs = list(_pairs(recorded, again))
    wrong: list[str] = []
    for where, was, now in pairs:
        if was.reward != now.reward:
            wrong.append(f"{where}: {was.reward} was recorded, {now.reward} is computed")
        elif dict(was.reward_parts) != dict(now.reward_parts):
            wrong.append(
                f"{where}: the parts {dict(was.reward_parts)} were recorded, {dict(now.reward_parts)} are computed"
            )
    return Compared("rewards", len(pairs), tuple(wrong[:5]), len(wrong))


def _advantages(recorded: Sequence[Group], again: Sequence[Group]) -> Compared:
    pairs = list(_pairs(recorded, again))
    wrong = [
        f"{where}: {was.advantage} was recorded, {now.advantage} is computed"
        for where, was, now in pairs
        if was.advantage != now.advantage
    ]
    return Compared("advantages", len(pairs), tuple(wrong[:5]), len(wrong))


def _completions(recorded: Sequence[Group], sampled: Sequence[Group]) -> Compared:
    pairs = list(_pairs(recorded, sampled))
    wrong: list[str] = []
    for where, was, now in pairs:
        if was.completion.token_ids != now.completion.token_ids:
            same = zip(was.completion.token_ids, now.completion.token_ids, strict=False)
            first = next(
                (i for i, (a, b) in enumerate(same) if a != b),
                min(map(len, (was.completion.token_ids, now.completion.token_ids))),
            )
            wrong.append(f"{where}: other tokens from token {first} on")
        elif not all(map(_same_fp32, was.completion.logprobs, now.completion.logprobs)):
            wrong.append(f"{where}: other logprobs")
    return Compared("completions", len(pairs), tuple(wrong[:5]), len(wrong))


def _same_fp32(was: float, now: float) -> bool:
    """Logprobs are stored in fp32."""
    return was == torch.tensor(now, dtype=torch.float32).item()


def _pairs(recorded: Sequence[Group], again: Sequence[Group]) -> Iterator[tuple[str, Rollout, Rollout]]:
    for number, (one, other) in enumerate(zip(recorded, again, strict=True)):
        for branch, (was, now) in enumerate(zip(one.rollouts, other.rollouts, strict=True)):
            yield f"group {number} ({one.problem.id}), completion {branch}", was, now


def _groups(rows: Sequence[RolloutRow], parts: Parts) -> list[Group]:
    """The groups as they were recorded. Problems are taken from the task: their columns may hold more than JSON."""
    known = {problem.id: problem for problem in parts.task.train}
    by_group: dict[int, list[RolloutRow]] = {}
    for row in rows:
        by_group.setdefault(row.group, []).append(row)
    return [
        Group(
            known.get(of[0].problem_id) or Problem(of[0].problem_id, of[0].prompt, of[0].columns),
            of[0].prompt_ids,
            tuple(map(_rollout, of)),
        )
        for _, of in sorted(by_group.items())
    ]


def _rollout(row: RolloutRow) -> Rollout:
    completion = Completion(row.token_ids, row.logprobs, cast(FinishReason, row.finish_reason), row.text)
    made = Rollout(completion, row.reward_parts, row.reward, row.advantage)
    return replace(made, outcome=cast(Outcome, row.outcome))


def _selected(rows: Sequence[RolloutRow]) -> set[int]:
    """The groups that trained: all, unless the algorithm selects."""
    return {row.group for row in rows if row.extra.get("selected", True)}


def _put(parts: Parts, path: Path) -> None:
    """Give the policy the trained weights that were kept."""
    if not path.is_file():
        raise RunError(f"{path} is not there: of the refused steps before the last ones only the words are kept")
    kept = load_file(path)
    with torch.no_grad():
        for name, parameter in parts.policy.trainable().items():
            parameter.copy_(kept[name])
