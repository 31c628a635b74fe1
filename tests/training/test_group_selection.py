"""Groups that are dropped and made up for, in whole runs: what is trained on, what is written down, what it cost."""

import asyncio
from collections import Counter

import pytest
from toy_runs import small_letters, trainer_of

from groupwise.config import load_recipe
from groupwise.config.presets import PRESETS
from groupwise.config.sections import AlgorithmSection
from groupwise.errors import RecipeError
from groupwise.learner.algorithm import Algorithm
from groupwise.rewards import TrainerState
from groupwise.training.problems import InOrder
from groupwise.training.report import StepReport
from groupwise.training.selection import MOST_ROUNDS, masked, select
from groupwise.types import Completion, Group, Problem, Rollout

EASY = "abcdef"
"""Half of the problems of the toy runs."""


def half_easy(prompts, completions, log_extra, log_metric, **kwargs):
    """1 for every completion of an easy problem, the share of small letters for the others."""
    log_extra("easy", [prompt[0] in EASY for prompt in prompts])
    log_metric("asked", len(prompts))
    return [
        1.0 if prompt[0] in EASY else small_letters([text])[0]
        for prompt, text in zip(prompts, completions, strict=True)
    ]


def is_easy(row):
    return row.prompt[0] in EASY


def test_groups_without_signal_are_replaced_and_the_cost_is_told(tmp_path):
    settings = {"algorithm.preset": "dapo", "train.prompts_per_step": 4, "train.steps": 1}
    run = trainer_of(tmp_path, [half_easy], **settings).train()
    (metrics,) = run.metrics.read()
    rows = run.rollouts(1)
    assert metrics["selection/groups"] == len(rows) / 4 > 4
    assert metrics["selection/rounds"] > 1
    trained = [row for row in rows if row.extra["selected"]]
    assert len({row.group for row in trained}) == 4
    assert not any(map(is_easy, trained))
    dropped = [row for row in rows if not row.extra["selected"]]
    assert {row.advantage for row in dropped} == {0.0}
    assert any(map(is_easy, dropped))
    assert metrics["selection/dropped"] == pytest.approx(len(dropped) / len(rows))
    tokens = sum(len(row.token_ids) for row in rows)
    assert metrics["sampled_tokens"] == tokens
    assert metrics["selection/dropped_tokens"] == pytest.approx(sum(len(r.token_ids) for r in dropped) / tokens)
    assert metrics["trained_tokens"] == sum(len(row.token_ids) for row in trained if row.advantage)
    # What the reward function logged is of all rounds, row by row.
    assert all(row.extra["easy"] == is_easy(row) for row in rows)
    assert metrics["asked"] == pytest.approx(len(rows) / metrics["selection/rounds"])


def test_a_problem_that_comes_again_in_a_step_gets_other_completions(tmp_path):
    # Two problems, of which one is always solved: the other one is drawn again and again.
    rows = [{"prompt": "a="}, {"prompt": "z="}]
    settings = {"algorithm.selection": "dynamic_sampling", "train.prompts_per_step": 3, "train.steps": 1}
    run = trainer_of(tmp_path, [half_easy], rows, **settings).train()
    groups = {}
    for row in run.rollouts(1):
        groups.setdefault(row.group, []).append(row.token_ids)
    assert len(groups) > 3
    assert max(Counter(tuple(ids) for ids in groups.values()).values()) == 1


def test_the_cap_holds_and_a_step_without_any_signal_moves_nothing(tmp_path):
    settings = {
        "algorithm.selection": "dynamic_sampling",
        "algorithm.settings.max_rounds": 2,
        "train.steps": 1,
        "train.prompts_per_step": 3,
    }
    run = trainer_of(tmp_path, [lambda completions, **kwargs: [1.0] * len(completions)], **settings).train()
    (metrics,) = run.metrics.read()
    assert (metrics["selection/rounds"], metrics["selection/groups"]) == (2, 6)
    assert (metrics["zero_signal"], metrics["trained_tokens"], metrics["grad_norm"]) == (1.0, 0.0, 0.0)
    assert run.recipe().recipe.algorithm.settings["max_rounds"] == 2


def test_oversampling_keeps_the_groups_that_differ_most(tmp_path):
    settings = {"algorithm.selection": "most_varied", "algorithm.settings.oversample": 2.0, "train.steps": 1}
    run = trainer_of(tmp_path, [half_easy], **{**settings, "train.prompts_per_step": 3}).train()
    (metrics,) = run.metrics.read()
    assert (metrics["selection/rounds"], metrics["selection/groups"], metrics["selection/dropped"]) == (1, 6, 0.5)
    rows = run.rollouts(1)
    spread = {g: _variance([r.reward for r in rows if r.group == g]) for g in range(6)}
    kept = {row.group for row in rows if row.extra["selected"]}
    assert min(spread[g] for g in kept) >= max(spread[g] for g in set(range(6)) - kept)


def _variance(values):
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values)


def test_without_a_selection_nothing_of_it_is_written(tmp_path):
    run = trainer_of(tmp_path, **{"train.steps": 1}).train()
    (metrics,) = run.metrics.read()
    assert not [name for name in metrics if name.startswith("selection/")]
    assert all("selected" not in row.extra for row in run.rollouts(1))


def test_truncated_completions_count_in_the_mean_and_train_nothing(tmp_path):
    def group(*finished):
        rollouts = [
            Rollout(Completion((7,) * 3, (-1.0,) * 3, reason, "x"), {"judge": reward}, reward, advantage)
            for reward, reason, advantage in finished
        ]
        return Group(Problem("p", "?"), (4,), tuple(rollouts))

    entries = {**PRESETS["grpo"], "mask_truncated": True}
    algorithm = Algorithm.of(AlgorithmSection(**entries), 3)
    (after,) = masked([group((1.0, "stop", 0.7), (0.0, "length", -0.7), (None, "stop", 0.0))], algorithm)
    assert [rollout.trains for rollout in after.rollouts] == [True, False, False]
    assert [rollout.advantage for rollout in after.rollouts] == [0.7, -0.7, 0.0]
    (same,) = masked([group((0.0, "length", -0.7))], Algorithm.of(AlgorithmSection(**PRESETS["grpo"]), 3))
    assert same.rollouts[0].trains
    # In a run whose completions all come to the limit nothing is learnt, and the rewards are told all the same.
    run = trainer_of(tmp_path, **{"algorithm.mask_truncated": True, "sampling.max_new_tokens": 1}).train()
    for row in run.metrics.read():
        assert row["truncated"] > 0.5
        assert row["trained_tokens"] < 8 * (1 - row["truncated"]) + 1e-9
        assert row["ungraded"] == 0


def test_a_selection_that_never_has_enough_is_stopped():
    entries = {**PRESETS["grpo"], "selection": "dynamic_sampling", "settings": {"max_rounds": 10**6}}
    algorithm = Algorithm.of(AlgorithmSection(**entries), 3)

    class Flat:
        async def sample(self, problems, step, before):
            return [Group(problem, (4,), ()) for problem in problems]

        async def grade(self, groups, state, log):
            return groups

    problems = InOrder([Problem("p", "?")], 0)
    work = select(
        problems, 2, rollouts=Flat(), algorithm=algorithm, state=TrainerState(max_steps=1), report=StepReport()
    )
    with pytest.raises(RecipeError, match=f"after {MOST_ROUNDS} rounds of sampling"):
        asyncio.run(work)


@pytest.mark.parametrize("kept", ["[]", "[0, 0]", "[9]"])
def test_what_a_selection_of_ones_own_keeps_has_to_be_there(tmp_path, monkeypatch, kept):
    (tmp_path / "mine.py").write_text(
        "def odd(rewards_QG, wanted, rounds):\n"
        f"    return ({kept} if len(rewards_QG) == 2 else [0], wanted * (rounds == 0))\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r'"mine.py:odd" keeps \[.*\] of the 2 groups that were sampled'):
        trainer_of(tmp_path, **{"algorithm.selection": "mine.py:odd"}).train()


def test_problems_by_difficulty_train_and_the_recipe_says_what_has_no_use(tmp_path):
    run = trainer_of(tmp_path, [half_easy], **{"problems.order": "difficulty", "train.steps": 3}).train()
    assert len(run.metrics.read()) == 3
    with pytest.raises(RecipeError, match=r"problems.target: says how to draw by difficulty"):
        load_recipe({"model": {"id": "x"}, "task": {"kind": "gsm8k"}, "problems": {"target": 0.3}})
