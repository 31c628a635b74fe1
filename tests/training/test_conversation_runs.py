"""Whole runs with tools and environments: from a recipe, and from Python by TRL's conventions."""

import pytest

from groupwise import Trainer
from groupwise.errors import GroupwiseError
from groupwise.tasks import Reply
from toys import char_tokenizer, tiny_model


def add(a: int, b: int) -> int:
    """Add.

    Args:
        a: One.
        b: Another.
    """
    return a + b


class Likes:
    """By TRL's convention: likes short conversations."""

    def reset(self, **row):
        self.said = 0
        return None

    def look(self) -> str:
        """Look around."""
        self.said += 1
        return "nothing"

    def get_reward(self) -> float:
        return 1.0 / (1 + self.said)


class Echo:
    """By ours."""

    async def reset(self, problem):
        return None

    async def step(self, said):
        return Reply.of("and?", reward=float(len(said)) / 10)


SETTINGS = {
    "train.steps": 2,
    "train.prompts_per_step": 2,
    "train.group_size": 3,
    "sampling.max_new_tokens": 60,
    "turns.limit": 3,
    "turns.tokens": 20,
    "sampling.stop": list("abcdefghijklmnopqrstuvwxyz"),
    "task.prompt_style": "plain",
    "optimizer.lr": 1e-3,
}
ROWS = [{"prompt": f"{n}+{n}=", "answer": str(2 * n)} for n in range(8)]


def run_of(tmp_path, rewards=(), **given):
    settings = {**SETTINGS, "run.folder": str(tmp_path / "runs"), "task.hold_out": 2, **given.pop("settings", {})}
    model = tiny_model(context=128)
    return Trainer(model, ROWS, rewards, settings, tokenizer=char_tokenizer(), **given).train()


def judged(completions, **columns):
    return [float(sum(len(m["content"]) for m in said if m["role"] == "assistant")) for said in completions]


def test_tools_of_a_program(tmp_path):
    run = run_of(tmp_path, [judged], tools=[add])
    rows = run.rollouts(2)
    assert len(rows) == 6
    assert {name for row in rows for name in row.reward_parts} == {"judged"}


@pytest.mark.parametrize("environment", [Likes, Echo])
def test_an_environment_brings_its_own_reward(environment, tmp_path):
    run = run_of(tmp_path, environment=environment)
    rows = run.rollouts(2)
    assert {name for row in rows for name in row.reward_parts} == {environment.__name__}
    if environment is Likes:
        assert all(row.reward == 1.0 for row in rows), "no tool was called"
        assert run.evaluations()[-1]["reward"] == 1.0
    assert 'environment = "(in memory) ' in (run.path / "recipe.toml").read_text()


def test_an_environment_that_a_recipe_names(tmp_path):
    (tmp_path / "talk.py").write_text(
        "from groupwise.tasks import Reply\n\n\nclass Talk:\n"
        "    async def reset(self, problem):\n        return ' Now'\n\n"
        "    async def step(self, said):\n        return Reply.of('more', reward=1.0)\n"
    )
    run = run_of(tmp_path, settings={"task.environment": str(tmp_path / "talk.py") + ":Talk"})
    assert {name for row in run.rollouts(1) for name in row.reward_parts} == {"Talk"}
    with pytest.raises(GroupwiseError, match=r"has nothing called 'Walk'. It has: Reply, Talk"):
        run_of(tmp_path, settings={"task.environment": str(tmp_path / "talk.py") + ":Walk", "run.name": "second"})


def test_the_sampler_agrees_and_turns_are_counted(tmp_path):
    run = run_of(tmp_path, environment=Echo, settings={"train.steps": 3})
    for row in run.metrics.read():
        assert row["sampler_gap"] < 1e-5
        assert 1 <= row["turns"] <= 3
        assert row["trained_tokens"] <= row["sampled_tokens"] <= row["length"] * 6 + 1e-6
        assert 0 < row["environment_tokens"] < 1
        assert row["environment_failures"] == 0
