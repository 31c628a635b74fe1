import asyncio
from dataclasses import replace

import pytest

from groupwise.errors import RewardError
from groupwise.rewards import GradingLog, RewardFunction, TrainerState, as_reward, correctness, reached_end
from groupwise.rollouts.grade import answers, graded
from groupwise.types import Completion, Group, Problem, Rollout


def group(identity, prompt, columns, *texts):
    rollouts = [
        Rollout(Completion((7, 1), (-0.5, -0.5), "stop" if text else "length", text), advantage=3.0) for text in texts
    ]
    return Group(Problem(identity, prompt, columns), (5, 6), tuple(rollouts))


GROUPS = [
    group("a", "1+1=", {"answer": "2", "level": 1}, "<answer>2</answer>", "<answer>3</answer>", ""),
    group("b", ({"role": "user", "content": "2+2="},), {"answer": None}, "<answer>4</answer>"),
]


def test_rollouts_get_their_parts_and_the_weighted_sum():
    rewards = [as_reward(correctness), as_reward(reached_end, 0.5)]
    first, second = asyncio.run(graded(GROUPS, rewards))
    assert [r.reward_parts for r in first.rollouts] == [
        {"correctness": 2.0, "reached_end": 0.5},
        {"correctness": 0.0, "reached_end": 0.5},
        {"correctness": 0.0, "reached_end": 0.0},
    ]
    assert first.rewards_G == [2.25, 0.25, 0.0]
    assert second.rollouts[0].reward_parts == {"correctness": None, "reached_end": 0.5}
    assert second.rewards_G == [0.25]


def test_everything_else_of_a_group_stays():
    (first, _) = asyncio.run(graded(GROUPS, [as_reward(reached_end)]))
    assert (first.problem, first.prompt_ids) == (GROUPS[0].problem, GROUPS[0].prompt_ids)
    assert [r.completion for r in first.rollouts] == [r.completion for r in GROUPS[0].rollouts]
    assert [r.advantage for r in first.rollouts] == [3.0, 3.0, 3.0]
    assert GROUPS[0].rewards_G == [None, None, None]


def test_a_row_that_nobody_grades_has_no_reward():
    _, second = asyncio.run(graded(GROUPS, [as_reward(correctness)]))
    assert second.rewards_G == [None]


def test_functions_are_called_once_with_all_groups_prompt_major():
    calls = []

    def spy(prompts, completions, completion_ids, finish_reasons, answer, level, trainer_state, log_extra):
        calls.append((prompts, completions, completion_ids, finish_reasons, answer, level, trainer_state.global_step))
        log_extra("length", [len(c) for c in completions])
        return [0.0] * len(prompts)

    log = GradingLog()
    asyncio.run(graded(GROUPS, [as_reward(spy)], trainer_state=TrainerState(4, 10, 0.1), log=log))
    assert calls == [
        (
            ["1+1=", "1+1=", "1+1=", [{"role": "user", "content": "2+2="}]],
            ["<answer>2</answer>", "<answer>3</answer>", "", [{"role": "assistant", "content": "<answer>4</answer>"}]],
            [[7, 1]] * 4,
            ["stop", "stop", "length", "stop"],
            ["2", "2", "2", None],
            [1, 1, 1, None],
            4,
        )
    ]
    assert log.columns == {"length": [18, 18, 0, 1]}


def test_functions_of_one_name_are_told_apart():
    def score(completions):
        return [1.0] * len(completions)

    first, _ = asyncio.run(graded(GROUPS, [as_reward(score, 1.0), as_reward(score, 10.0)]))
    assert first.rollouts[0].reward_parts == {"score": 1.0, "score_2": 1.0} and first.rewards_G[0] == 11.0


def test_rows_in_errors_are_counted_over_all_groups():
    def last_is_wrong(completions):
        return [0.0, 0.0, 0.0, float("nan")]

    with pytest.raises(RewardError, match=r"'last_is_wrong' returned nan for row 3 \(prompt .*2\+2="):
        asyncio.run(graded(GROUPS, [RewardFunction("last_is_wrong", last_is_wrong, on_error="stop")]))


def test_no_groups():
    assert asyncio.run(graded([], [as_reward(correctness)])) == []
    assert len(answers([])) == 0


def test_what_was_cut_as_a_loop_gets_what_is_stated():
    """Whatever functions read in it; shared among the parts so that their weighted sum is the reward."""
    looped = group("a", "1+1=", {"answer": "2"}, "<answer>2</answer>", "<answer>2</answer>")
    first, second = looped.rollouts
    looped = replace(
        looped, rollouts=(replace(first, completion=replace(first.completion, finish_reason="loop")), second)
    )
    rewards = [as_reward(correctness), as_reward(correctness, 3.0)]
    (done,) = asyncio.run(graded([looped], rewards, loop_reward=-1.0))
    cut, whole = done.rollouts
    assert (cut.reward, cut.outcome) == (-1.0, "wrong")
    assert cut.reward_parts == {"correctness": -0.25, "correctness_2": -0.25}
    assert "went round in circles" in cut.why
    assert (whole.reward, whole.outcome, whole.why) == (8.0, "scored", "")
