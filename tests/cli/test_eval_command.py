"""`groupwise eval`: a run's own model on its own task, a recipe's, or a model on a task that is named."""

import pytest

from groupwise.config import load_recipe
from groupwise.runs.folder import RunFolder
from groupwise.training.trainer import Trainer


def test_a_run_is_evaluated_and_keeps_the_result(trained, groupwise):
    run = RunFolder.open(trained["full"])
    before = len(run.evaluations())
    ended = groupwise("eval", run.path, "evaluation.problems=4", "evaluation.pass_at=[1,2]", "evaluation.samples=2")
    assert (ended.code, ended.err) == (0, "")
    result = run.evaluations()[before:]
    assert [(row["step"], row["label"], row["problems"]) for row in result] == [(2, "eval", 4)]
    assert {"accuracy", "accuracy_low", "accuracy_high", "pass@1", "pass@2", "reward"} <= set(result[0])
    assert result[0]["model"] == str(run.model_path)
    assert result[0]["overrides"][0] == "evaluation.problems=4"
    answers = run.answers(result[0])
    assert [answer.greedy for answer in answers] == [True] * 4 + [False] * 8
    assert f"every answer: {run.path}/{result[0]['answers']}\n" in ended.out
    accuracy = result[0]["accuracy"]
    assert f"eval 4 problems  accuracy {accuracy:.3f} [" in ended.out


@pytest.mark.parametrize("name", ["full", "adapter"])
def test_it_is_the_trained_model_that_is_evaluated(trained, groupwise, name):
    """The last evaluation of training asked the same model the same problems: the answers must be the same."""
    run = RunFolder.open(trained[name])
    after = next(row for row in run.evaluations() if row["label"] == "after")
    assert groupwise("eval", run.path).code == 0
    again = run.evaluations()[-1]
    assert [a.completion.token_ids for a in run.answers(again)] == [a.completion.token_ids for a in run.answers(after)]
    assert again["reward"] == after["reward"]
    untrained = next(row for row in run.evaluations() if row["label"] == "before")
    if name == "adapter":
        texts = [[answer.completion.text for answer in run.answers(row)] for row in (untrained, after)]
        assert texts[0] != texts[1], "training changed nothing, so this test shows nothing"


def test_a_recipe_is_evaluated_with_the_model_it_starts_from(recipe, groupwise):
    ended = groupwise("eval", "recipe.toml")
    assert ended.code == 0, ended.err
    assert "every answer" not in ended.out
    assert not (recipe.parent / "runs").exists()
    assert "3 of 6 wrong, none right" in ended.out
    assert ended.out.count("✗") == 3


def test_the_result_can_be_kept_elsewhere(recipe, groupwise):
    for _ in range(2):
        assert groupwise("eval", "recipe.toml", "--out", "results/first", "--show", "0").code == 0
    kept = RunFolder(recipe.parent / "results/first")
    assert [row["label"] for row in kept.evaluations()] == ["eval", "eval"]
    assert len(kept.answers(kept.evaluations()[1])) == 6


def test_a_model_alone_needs_a_task(recipe, groupwise, small):
    ended = groupwise("eval", small)
    assert ended.code == 1
    assert "add a task, such as task.kind=gsm8k" in ended.err
    ended = groupwise("eval", small, "task.kind=arithmetic", "evaluation.problems=2", "sampling.max_new_tokens=4")
    assert ended.code == 0, ended.err
    assert "eval 2 problems" in ended.out


def test_a_task_without_answers_shows_answers_and_no_marks(recipe, groupwise):
    rows = "".join(f'{{"prompt": "say {word}"}}\n' for word in ("one", "two", "three", "four"))
    (recipe.parent / "rows.jsonl").write_text(rows)
    task = 'task={kind = "dataset", path = "rows.jsonl", hold_out = 2}'
    ended = groupwise("eval", "recipe.toml", task, 'rewards=[{function = "length", settings = {target = 3}}]')
    assert ended.code == 0, ended.err
    assert "the first 2 of 2 answers" in ended.out
    assert "✗" not in ended.out


def test_what_cannot_be_evaluated(recipe, groupwise, trained):
    assert "is not a run but holds 2 of them" in groupwise("eval", trained["full"].parent).err
    assert "did you mean" in groupwise("eval", trained["full"].parent / "ful").err
    near = trained["full"].parent.parent / "run" / "full"
    assert f"there is no run at {near}; did you mean {trained['full']}?" in groupwise("eval", near).err
    assert "there is no such file" in groupwise("eval", "nowhere.toml").err
    assert "cannot write /proc/x" in groupwise("eval", "recipe.toml", "--out", "/proc/x").err
    (recipe.parent / "rows.jsonl").write_text('{"prompt": "1", "answer": "2"}\n')
    ended = groupwise("eval", "recipe.toml", 'task={kind = "dataset", path = "rows.jsonl"}')
    assert (ended.code, "set task.hold_out or task.eval_split" in ended.err) == (1, True)


def test_a_run_of_a_program_says_that_its_task_is_gone(recipe, groupwise, small):
    rows = [{"prompt": "1+1", "answer": "2"}, {"prompt": "1+2", "answer": "3"}]
    settings = {"train.steps": 1, "sampling.max_new_tokens": 4, "task.hold_out": 1}
    run = Trainer(str(small), rows, rewards=[lambda completions, **_: [0.0] * len(completions)], settings=settings)
    path = run.train().path
    ended = groupwise("eval", path)
    assert ended.code == 1
    assert "evaluate it there" in ended.err
    assert groupwise("sample", path, "--prompt", "1+1").code == 0


def test_the_same_from_python(recipe):
    trainer = Trainer.from_recipe(load_recipe(recipe, ["evaluation.problems=3"]))
    evaluation = trainer.evaluate()
    assert evaluation.accuracy is not None
    assert evaluation.accuracy.problems == 3
    assert len(evaluation.answers) == 3
    assert not (recipe.parent / "runs").exists()
