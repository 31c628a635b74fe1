"""What a program hands over to `Trainer` is what trains; what a setting cannot change beside it is refused."""

from pathlib import Path

import pytest
from toy_runs import small_letters

from groupwise import RewardFunction, Trainer
from groupwise.errors import ModelError, RecipeError, TaskError
from groupwise.tasks import Task, arithmetic
from groupwise.types import Problem
from toys import char_tokenizer, tiny_model

ROWS = [{"prompt": f"{i}?", "answer": str(i)} for i in range(8)]
QUICK = {"train.steps": 1, "train.group_size": 2, "train.prompts_per_step": 2, "sampling.max_new_tokens": 4}


def trainer(tmp_path, task, rewards, **settings):
    place = {"run.folder": str(tmp_path)}
    return Trainer(tiny_model(), task, rewards, {**QUICK, **place, **settings}, tokenizer=char_tokenizer())


def test_a_weight_is_used_and_written_down(tmp_path):
    run = trainer(tmp_path, ROWS, [RewardFunction("letters", small_letters, weight=0.5)]).train()
    for row in run.rollouts(1):
        assert row.reward == pytest.approx(0.5 * row.reward_parts["letters"])
    assert "weight = 0.5" in (run.path / "recipe.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["hold_out", "limit", "system_prompt", "digits"])
def test_a_task_object_leaves_nothing_to_set(tmp_path, name):
    task = arithmetic(digits=1, terms=3, train_size=20, eval_size=4)
    with pytest.raises(RecipeError, match=f"task.{name} is set, but the task is given as an object"):
        trainer(tmp_path, task, [small_letters], **{f"task.{name}": 3})


@pytest.mark.parametrize("name", ["eval_split", "train_split", "revision", "name", "path"])
def test_rows_have_no_splits(tmp_path, name):
    with pytest.raises(RecipeError, match=f"task.{name} is set, but the task is given as rows"):
        trainer(tmp_path, ROWS, [small_letters], **{f"task.{name}": "x"})


@pytest.mark.parametrize("name", ["id", "revision", "trust_remote_code"])
def test_a_model_object_comes_from_nowhere(tmp_path, name):
    with pytest.raises(RecipeError, match=f"model.{name} is set, but the model is given as an object"):
        trainer(tmp_path, ROWS, [small_letters], **{f"model.{name}": "x"})


def test_rewards_are_given_in_one_place():
    with pytest.raises(RecipeError, match="rewards are given twice"):
        Trainer(tiny_model(), ROWS, [small_letters], {"rewards": [{"function": "length"}]}, tokenizer=char_tokenizer())


def test_a_tokenizer_of_another_model_is_told_before_anything_is_sampled(tmp_path):
    model = tiny_model()
    model.resize_token_embeddings(20)
    alien = Trainer(model, ROWS, [small_letters], {**QUICK, "run.folder": str(tmp_path)}, tokenizer=char_tokenizer())
    with pytest.raises(ModelError, match="embeddings for 20 tokens only"):
        alien.train()


def test_one_reward_needs_no_list(tmp_path):
    one = Trainer(tiny_model(), ROWS, small_letters, {**QUICK, "run.folder": str(tmp_path)}, tokenizer=char_tokenizer())
    assert set(one.train().rollouts(1)[0].reward_parts) == {"small_letters"}


def test_a_model_may_be_named_by_a_path():
    with pytest.raises(ModelError, match="no such folder"):
        _ = Trainer(Path("/nowhere/at/all"), [{"prompt": "a"}], lambda completions: []).parts


@pytest.mark.parametrize("task", ["mine.jsonl", Path("mine.jsonl")])
def test_a_file_of_rows_is_told_how_it_is_named(task):
    with pytest.raises(RecipeError, match=r'task=\{"kind": "dataset", "path": \'mine.jsonl\'\}'):
        Trainer("x", task, lambda completions: [])


@pytest.mark.parametrize("task", [5, None])
def test_what_is_no_task_is_told(task):
    with pytest.raises(RecipeError, match="give a task's name, its settings, a Task, or rows"):
        Trainer("x", task, lambda completions: [])


@pytest.mark.parametrize(
    ("problem", "why"),
    [
        ({"prompt": "a"}, "holds a dict, {'prompt': 'a'}, where a Problem belongs"),
        (Problem("p", 3), "p: a prompt is a text or a list of messages, not a int"),  # type: ignore
    ],
)
def test_a_task_of_what_is_no_problem_is_told(problem, why):
    trainer = Trainer(tiny_model(), Task("t", [problem], []), lambda completions: [], tokenizer=char_tokenizer())
    with pytest.raises(TaskError) as caught:
        _ = trainer.parts
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("model", "settings", "tokenizer", "why"),
    [
        (None, {}, None, "was given a NoneType: give an id, a folder, or a model"),
        ("x", ["train.steps=1"], None, "was given a list: settings are a dict"),
        ("x", {1: 2}, None, "has the key 1"),
        ("x", {}, char_tokenizer(), "leave it away"),
        (tiny_model(), {}, "x", "was given a str: load it first"),
    ],
)
def test_arguments_of_another_kind_are_told(model, settings, tokenizer, why):
    with pytest.raises(RecipeError) as caught:
        Trainer(model, [{"prompt": "a"}], lambda completions: [], settings, tokenizer=tokenizer)
    assert why in str(caught.value)
