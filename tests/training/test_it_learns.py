"""The whole loop on a task that a tiny model masters in seconds, and the same loop with the sign of the advantage
flipped: it must learn the opposite, or what looks like learning is something else."""

import pytest
from toy_runs import small_letters, trainer_of

from groupwise.maths.advantages import ADVANTAGES, group_normalized
from groupwise.tasks.rows import rows
from toys import tiny_model


def flipped(rewards_QG):
    return [[-advantage for advantage in advantages] for advantages in group_normalized(rewards_QG)]


def rewards_of(tmp_path, name, loudness=1.0, **settings):
    """The mean reward of each step: the share of small letters, 26 of the 100 tokens."""
    usual = {"run.name": name, "train.steps": 30, "train.prompts_per_step": 4, "train.group_size": 8}
    task = rows([{"prompt": letter} for letter in "ABCDEFGH"])
    model = tiny_model(loudness=loudness)
    run = trainer_of(tmp_path, [small_letters], task, model, **{**usual, **settings}).train()
    return [reward for _, reward in run.metrics.series("reward")]


def mean(values):
    return sum(values) / len(values)


@pytest.mark.parametrize(
    "way",
    [
        {"algorithm.preset": "grpo"},
        {"algorithm.preset": "dr_grpo", "algorithm.advantage": "group_normalized", "learner.passes": 2},
        {"algorithm.preset": "dapo", "learner.updates_per_batch": 2, "algorithm.beta": 0.001},
        {"algorithm.preset": "grpo", "lora": {"r": 8}, "loudness": 20.0},
    ],
    ids=["grpo", "dr_grpo", "dapo", "lora"],
)
def test_it_learns_what_is_rewarded_and_with_the_wrong_sign_the_opposite(tmp_path, monkeypatch, way):
    right = rewards_of(tmp_path, "right", **way)
    assert mean(right[:3]) < 0.35
    assert mean(right[-5:]) > 0.7
    monkeypatch.setitem(ADVANTAGES._entries, "group_normalized", flipped)
    wrong = rewards_of(tmp_path, "wrong", **way)
    assert wrong[0] == right[0] > 0.1
    assert mean(wrong[-5:]) < wrong[0] / 3
