"""Several tasks in one run: drawn by weight, graded each by its own, told apart in every number."""

import asyncio
import json

import pytest
from toy_runs import Listener

from groupwise.config import load_recipe
from groupwise.errors import GroupwiseError
from groupwise.rewards import Answers, as_reward, grade
from groupwise.tasks import arithmetic, rows
from groupwise.tasks.mixture import Part, mixture
from groupwise.training.build import Given
from groupwise.training.mixture import ByTask
from groupwise.training.trainer import Trainer
from groupwise.types import Problem
from toys import char_tokenizer, tiny_model


def problems(**counts):
    return [Problem(f"{name}/{i}", "x", {}, name) for name, count in counts.items() for i in range(count)]


def test_weights_are_shares_whatever_the_sizes_are():
    supply = ByTask(problems(small=3, large=300), {"small": 3.0, "large": 1.0}, seed=1)
    drawn = supply.next(2000)
    assert 0.72 < sum(problem.task == "small" for problem in drawn) / 2000 < 0.78
    large = [problem.id for problem in drawn if problem.task == "large"][:300]
    assert len(set(large)) == 300, "each part has epochs of its own"


def test_the_order_can_be_left_and_taken_up_again():
    def supply():
        return ByTask(problems(a=5, b=9), {"a": 1.0, "b": 2.0}, seed=3)

    straight = supply().next(40)
    first = supply()
    begun = first.next(17)
    state = json.loads(json.dumps(first.state()))
    second = supply()
    second.restore(state)
    assert begun + second.next(23) == straight
    assert second.epoch == 40 / 14
    with pytest.raises(GroupwiseError, match="was a mixture of c, and is now of a, b"):
        second.restore({"drawn": {"c": 1}})


def test_a_reward_grades_the_rows_of_its_task_and_logs_for_them():
    def judged(completions, answer, log_extra):
        log_extra("seen", completions)
        return [float(text == gold) for text, gold in zip(completions, answer, strict=True)]

    from dataclasses import replace

    from groupwise.rewards import GradingLog

    of_a = replace(as_reward(judged, name="a/judged"), task="a")
    for_all = as_reward(lambda completions: [0.5 for _ in completions], name="all")
    texts = ["1", "2", "3"]
    answers = Answers(["p"] * 3, texts, [()] * 3, ["stop"] * 3, {"answer": ["1", None, "4"]}, tasks=["a", "b", "a"])
    log = GradingLog()
    grades = asyncio.run(grade([of_a, for_all], answers, log=log))
    assert [g.parts for g in grades] == [
        {"a/judged": 1.0, "all": 0.5},
        {"a/judged": None, "all": 0.5},
        {"a/judged": 0.0, "all": 0.5},
    ]
    assert [g.reward for g in grades] == [1.5, 0.5, 0.5]
    assert log.columns["seen"] == ["1", None, "3"]


def test_a_mixture_of_tasks():
    letters = rows([{"prompt": f"{c}=", "answer": c} for c in "abcdef"], hold_out=2)
    whole = mixture(parts=[Part("sums", arithmetic(digits=1, train_size=9, eval_size=3)), Part("letters", letters)])
    assert [p.task for p in whole.held_out] == ["sums", "letters", "sums", "letters", "sums"]
    assert {reward.name for reward in whole.rewards} == {"sums/correctness", "sums/tag_count"}
    letter = whole.held_out[1]
    assert letter.id.startswith("letters/rows/train/")
    assert whole.is_correct(letter.columns["answer"], letter.columns)
    assert not whole.is_correct("z", letter.columns)
    with pytest.raises(GroupwiseError, match="two parts of the mixture are called 'x'"):
        mixture(parts=[Part("x", letters), Part("x", letters)])


def test_a_part_that_cannot_be_made_is_named():
    part = {"name": "sums", "task": {"kind": "arithmetic", "digits": 1, "train_size": 1_000}}
    loaded = load_recipe({"model": {"id": "toy"}, "task": {"kind": "mixture", "parts": [part]}})
    with pytest.raises(GroupwiseError, match=r"^task.parts, 'sums': there are only \d+ different problems"):
        Trainer.from_recipe(loaded, Listener()).train()


def test_a_run_from_a_recipe(tmp_path):
    (tmp_path / "tasks.py").write_text(
        "def shouts():\n    return [{'prompt': f'{c}!', 'answer': c.upper()} for c in 'abcdefgh']\n\n\n"
        "def small(completions, **_):\n    return [sum(c.islower() for c in text) / 8 for text in completions]\n\n\n"
        "def large(completions, **_):\n    return [sum(c.isupper() for c in text) / 8 for text in completions]\n"
    )
    (tmp_path / "recipe.toml").write_text(
        '[model]\nid = "toy"\n[task]\nkind = "mixture"\nprompt_style = "plain"\n'
        '[[task.parts]]\nname = "sums"\ntask = {kind = "arithmetic", digits = 1, train_size = 20, eval_size = 4}\n'
        'rewards = [{function = "tasks.py:small"}]\n'
        '[[task.parts]]\nname = "shouts"\nweight = 2\n'
        'task = {kind = "file", path = "tasks.py:shouts", hold_out = 2, system_prompt = "Loud"}\n'
        'rewards = [{function = "tasks.py:large"}]\n'
        "[train]\nsteps = 3\nprompts_per_step = 6\ngroup_size = 4\n[sampling]\nmax_new_tokens = 8\n"
        f'[run]\nfolder = "{tmp_path}/runs"\n'
    )
    loaded = load_recipe(tmp_path / "recipe.toml")
    listener = Listener()
    trainer = Trainer.from_recipe(loaded, listener)
    from groupwise.training.given import _maker

    trainer._given = Given(policy=_maker(tiny_model(), char_tokenizer()))
    run = trainer.train()
    for row in run.metrics.read():
        shares = [row.get(f"tasks/{name}/share", 0.0) for name in ("sums", "shouts")]
        assert sum(shares) == pytest.approx(1)
    kept = [row for step in (1, 2, 3) for row in run.rollouts(step)]
    for row in kept:
        name = row.problem_id.split("/")[0]
        own, other = ("sums/small", "shouts/large") if name == "sums" else ("shouts/large", "sums/small")
        assert row.reward_parts[own] is not None
        assert row.reward_parts[other] is None
        assert row.columns["task"] == name
    assert {row.problem_id.split("/")[0] for row in kept} == {"sums", "shouts"}
    assert run.recipe().recipe.task == loaded.recipe.task, "the resolved recipe says the same"
    assert {"accuracy/sums", "accuracy/shouts"} <= set(run.evaluations()[-1])
    assert char_tokenizer().decode(next(r for r in kept if r.problem_id[1] == "h").prompt_ids).startswith("Loud")
