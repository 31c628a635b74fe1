"""Evaluations in a run: when they are held, on what, what they say, and that every answer is kept."""

import pytest
import torch
from toy_runs import ROWS, Listener, small_letters, trainer_of

from groupwise.errors import TaskError
from groupwise.tasks import Task
from groupwise.types import Problem
from toys import ids_of, tiny_model

HELD_OUT = [Problem(f"held/{i}", f"{letter}=", {"answer": letter}) for i, letter in enumerate("mnopq")]
TRAIN = [Problem(f"train/{i}", f"{letter}=", {"answer": letter}) for i, letter in enumerate("abcdef")]


def even(text, columns):
    """A judge that is easily checked: whether the text has an even number of small letters."""
    return sum(character.islower() for character in text) % 2 == 0


def task(**changes):
    return Task(**{"name": "toy", "train": TRAIN, "held_out": HELD_OUT, "is_correct": even, **changes})


def labels(run):
    return [(row["label"], row["step"]) for row in run.evaluations()]


def test_evaluations_are_held_when_asked_for(tmp_path):
    every_two = {"train.steps": 5, "evaluation.every": 2}
    run = trainer_of(tmp_path, rows=task(), **every_two).train()
    assert labels(run) == [("before", 0), ("step 2", 2), ("step 4", 4), ("after", 5)]
    run = trainer_of(tmp_path, rows=task(), **every_two, **{"run.name": "b", "evaluation.before": False}).train()
    assert labels(run) == [("step 2", 2), ("step 4", 4), ("after", 5)]
    run = trainer_of(tmp_path, rows=task(), **{"run.name": "c", "evaluation.every": 2}).train()
    assert labels(run) == [("before", 0), ("after", 2)]  # the last step is not evaluated twice


def test_a_reward_is_told_in_evaluations_too_how_far_training_is(tmp_path):
    told = []

    def annealed(completions, trainer_state, **kwargs):
        told.append((trainer_state.global_step, trainer_state.max_steps))
        return [trainer_state.global_step / trainer_state.max_steps] * len(completions)

    trainer_of(tmp_path, [annealed], task(), **{"train.steps": 3, "evaluation.every": 2}).train()
    assert told == [(0, 3), (1, 3), (2, 3), (2, 3), (3, 3), (3, 3)]  # before, two steps, step 2, the last step, after


def test_the_numbers_are_those_of_the_answers(tmp_path):
    settings = {"evaluation.pass_at": [1, 3], "evaluation.samples": 3, "evaluation.problems": 4}
    run = trainer_of(tmp_path, rows=task(), **settings).train()
    for row in run.evaluations():
        answers = run.answers(row)
        greedy = [answer for answer in answers if answer.greedy]
        sampled = [answer for answer in answers if not answer.greedy]
        assert [answer.problem.id for answer in greedy] == ["held/0", "held/1", "held/2", "held/3"]
        assert [(a.problem.id, a.branch) for a in sampled] == [(f"held/{i}", b) for i in range(4) for b in range(3)]
        assert all(answer.correct == even(answer.completion.text, {}) for answer in answers)
        assert row["accuracy"] == pytest.approx(sum(answer.correct for answer in greedy) / 4)
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        by_problem = [[answer.correct for answer in sampled[i : i + 3]] for i in range(0, 12, 3)]
        assert row["pass@1"] == pytest.approx(sum(map(sum, by_problem)) / 12)
        assert row["pass@3"] == pytest.approx(sum(map(any, by_problem)) / 4)
        assert row["reward"] == pytest.approx(sum(small_letters([a.completion.text for a in greedy])) / 4)
        assert row["problems"] == 4


def test_no_evaluated_problem_is_trained_on(tmp_path):
    run = trainer_of(tmp_path, rows=ROWS, **{"task.hold_out": 4, "train.steps": 8}).train()
    trained = {row.prompt for step in run.rollout_steps() for row in run.rollouts(step)}
    evaluated = {answer.problem.prompt for answer in run.answers(run.evaluations()[0])}
    assert (len(trained), len(evaluated)) == (8, 4)
    assert not trained & evaluated


def test_greedy_answers_are_the_same_until_the_policy_changes(tmp_path):
    still = trainer_of(tmp_path, rows=task(), **{"optimizer.lr": 1e-30, "evaluation.every": 1}).train()
    texts = [[answer.completion.text for answer in still.answers(row)] for row in still.evaluations()]
    assert texts[0] == texts[1] == texts[2]
    moved = trainer_of(tmp_path, rows=task(), **{"run.name": "b", "train.steps": 10, "optimizer.lr": 0.1}).train()
    first, last = ([a.completion.text for a in moved.answers(row)] for row in moved.evaluations())
    assert first == texts[0]
    assert last != first


def test_greedy_answers_are_those_of_transformers(tmp_path):
    model = tiny_model(loudness=5.0)
    evaluation = trainer_of(tmp_path, rows=task(), model=model).evaluate()
    for answer in evaluation.answers:
        ids = torch.tensor([ids_of(answer.problem.prompt)])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        assert answer.completion.token_ids == tuple(out[0, ids.shape[1] :].tolist())


def test_every_problem_has_draws_of_its_own(tmp_path):
    twins = [Problem(f"held/{i}", "m=", {"answer": "m"}) for i in range(2)]
    trainer = trainer_of(tmp_path, rows=task(held_out=twins), **{"evaluation.pass_at": [1]})
    first, second = (
        [a.completion.token_ids for a in trainer.evaluate().answers if not a.greedy and a.problem.id == twin.id]
        for twin in twins
    )
    assert not set(first) & set(second)
    assert len(set(first)) == 8


def test_training_does_not_depend_on_evaluations(tmp_path):
    rewards = []
    for name, settings in (("a", {}), ("b", {"evaluation.every": 1, "evaluation.pass_at": [2]})):
        run = trainer_of(tmp_path, rows=task(), **{"train.steps": 3, "run.name": name, **settings}).train()
        rewards.append([[row.token_ids for row in run.rollouts(step)] for step in (1, 2, 3)])
    assert rewards[0] == rewards[1]


def test_the_change_is_told_after_the_first(tmp_path):
    listener, judged = Listener(), []

    def better_each_time(text, columns):
        judged.append(text)
        evaluation, place = divmod(len(judged) - 1, len(HELD_OUT))
        return place <= evaluation

    rows = task(is_correct=better_each_time)
    trainer_of(tmp_path, rows=rows, reporter=listener, **{"evaluation.every": 1}).train()
    (before, first), (_, second), (_, third) = listener.evaluations
    assert before == "before"
    assert "accuracy 0.200" in first
    assert "p =" not in first
    assert "(+0.200 [" in second
    assert "(+0.400 [" in third
    assert "p =" in third


def test_without_held_out_problems_nothing_is_evaluated_and_that_is_said(tmp_path):
    listener = Listener()
    trainer = trainer_of(tmp_path, rows=task(held_out=[]), reporter=listener)
    run = trainer.train()
    assert run.evaluations() == []
    assert listener.messages == ["the task 'toy' holds no problems out, so nothing is evaluated: see task.hold_out"]
    with pytest.raises(TaskError, match="nothing to evaluate on"):
        trainer.evaluate()


def test_pass_at_k_without_gold_answers_is_said_to_be_impossible(tmp_path):
    listener = Listener()
    rows = task(is_correct=None)
    run = trainer_of(tmp_path, rows=rows, reporter=listener, **{"evaluation.pass_at": [2]}).train()
    assert any("no pass@k" in message for message in listener.messages)
    row = run.evaluations()[0]
    assert row["reward"] is not None
    assert not {"accuracy", "pass@2"} & row.keys()


def test_evaluate_alone_writes_nothing(tmp_path):
    trainer = trainer_of(tmp_path, rows=task())
    evaluation = trainer.evaluate()
    assert evaluation.accuracy.problems == 5
    assert str(evaluation).startswith("accuracy 0.") or str(evaluation).startswith("accuracy 1.")
    assert list(tmp_path.iterdir()) == []
    run = trainer.train()
    assert run.evaluations()[0]["accuracy"] == evaluation.accuracy.value


def test_the_reporter_hears_the_steps_and_the_end(tmp_path):
    listener = Listener()
    trainer_of(tmp_path, reporter=listener, **{"train.steps": 3, "task.hold_out": 2}).train()
    assert (listener.steps, listener.depth) == (3, 0)
    assert [label for label, _ in listener.evaluations] == ["before", "after"]
    assert listener.evaluations[0][1].startswith("accuracy 0.")
