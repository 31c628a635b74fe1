import pytest

from groupwise.errors import TaskError
from groupwise.rewards import correctness, strict_format, tag_count
from groupwise.tasks import arithmetic
from groupwise.tasks.carry import added, subtracted, worked_out


def key(problem):
    return tuple(sorted(problem.columns["terms"]))


def test_carries_worked_by_hand():
    assert worked_out([347, 589]) == "7+9+0=16;4+8+1=13;3+5+1=09"
    assert added(95, 8) == "5+8+0=13;9+0+1=10"
    assert added(12, 34) == "2+4+0=06;1+3+0=04"
    assert added(0, 0) == "0+0+0=00"


def test_differences_worked_by_hand():
    assert subtracted(523, 87) == "13-7-0=6;12-8-1=3;5-0-1=4"
    assert subtracted(1000, 1) == "10-1-0=9;10-0-1=9;10-0-1=9;1-0-1=0"
    assert worked_out([12, -45]) == "5-2-0=3;4-1-0=3"


def test_chains_keep_a_running_total():
    assert worked_out([5, 3, -9]) == "5+3+0=08 so 8\n9-8-0=1"
    assert worked_out([5, -9, -3]) == "9-5-0=4 so -4\n4+3+0=07"
    assert worked_out([5, -9, 3]) == "9-5-0=4 so -4\n4-3-0=1"
    assert worked_out([5, -9, 6]) == "9-5-0=4 so -4\n6-4-0=2"


def test_only_a_share_of_the_demonstrations_reasons_and_all_are_correct():
    task = arithmetic(digits=2, train_size=1000, eval_size=10, worked=0.25)
    shown = [task.demonstrations(problem) for problem in task.train]
    assert 200 < sum("<reasoning>" in text for text in shown) < 300
    assert all(task.is_correct(text, problem.columns) for text, problem in zip(shown, task.train, strict=True))
    assert shown == [task.demonstrations(problem) for problem in task.train]
    assert {len(text) for text in shown if "<reasoning>" not in text} <= {
        len("<answer>99</answer>") + n for n in (0, 1)
    }


@pytest.mark.parametrize("operations", [["+"], ["-"], ["+", "-"]])
@pytest.mark.parametrize(("digits", "terms"), [(1, 3), (2, 2), (3, 4), (12, 8)])
def test_every_demonstration_is_correct(digits, terms, operations):
    task = arithmetic(digits=digits, terms=terms, operations=operations, train_size=60, eval_size=10)
    for problem in [*task.train, *task.held_out]:
        demonstration = task.demonstrations(problem)
        assert task.is_correct(demonstration, problem.columns)
        assert correctness([demonstration], answer=[problem.columns["answer"]]) == [2.0]
        assert strict_format([demonstration], lines=False) == tag_count([demonstration]) == [0.5]
        numbers = problem.prompt.removesuffix("=?").replace("-", "+-").split("+")
        assert sum(int(number) for number in numbers) == int(problem.columns["answer"])
        assert all(len(number.lstrip("-")) == digits for number in numbers) and len(numbers) == terms


@pytest.mark.parametrize("digits", [1, 2, 3, 6])
def test_the_columns_of_a_demonstration_add_up(digits):
    for problem in arithmetic(digits=digits, operations=["+", "-"], train_size=50, eval_size=10).train:
        read = right = ""
        for column in worked_out(problem.columns["terms"]).split(";"):
            left, _, right = column.rpartition("=")
            parts = left.replace("-", "+-").split("+")
            assert sum(int(part) for part in parts) == int(right)
            read = right[-1] + read
        assert abs(int(problem.columns["answer"])) == int(right[:-1] + read)


def test_no_held_out_problem_is_trained_on_not_even_rearranged():
    task = arithmetic(digits=1, terms=3, operations=["+", "-"], train_size=1500, eval_size=100)
    held_out = {key(problem) for problem in task.held_out}
    assert len(held_out) == 100
    assert not held_out & {key(problem) for problem in task.train}
    prompts = [problem.prompt for problem in task.train]
    assert len(set(prompts)) == len(prompts) == 1500


def test_the_seed_decides_and_more_training_leaves_the_held_out_ones():
    task = arithmetic(train_size=50, eval_size=20, seed=3)
    assert arithmetic(train_size=50, eval_size=20, seed=3).train == task.train
    assert arithmetic(train_size=80, eval_size=20, seed=3).held_out == task.held_out
    assert arithmetic(train_size=80, eval_size=20, seed=3).train[:50] == task.train
    assert arithmetic(train_size=50, eval_size=20, seed=4).train != task.train


def test_a_space_too_large_to_be_listed_is_drawn_from():
    task = arithmetic(digits=12, terms=8, operations=["+", "-"], train_size=30, eval_size=30)
    assert len({problem.prompt for problem in [*task.train, *task.held_out]}) == 60
    assert task.train == arithmetic(digits=12, terms=8, operations=["-", "+"], train_size=30, eval_size=30).train


def test_problems_and_defaults():
    task = arithmetic(train_size=3, eval_size=2)
    assert [p.id for p in task.train] == ["arithmetic/train/0", "arithmetic/train/1", "arithmetic/train/2"]
    assert [p.id for p in task.held_out] == ["arithmetic/eval/0", "arithmetic/eval/1"]
    assert [r.name for r in task.rewards] == ["correctness", "tag_count"]
    assert task.system_prompt is None
    assert "<answer>" in arithmetic(train_size=1, eval_size=1, system_prompt="default").system_prompt
    assert arithmetic(train_size=1, eval_size=1, system_prompt="Add.").system_prompt == "Add."


def test_only_an_answer_in_its_tags_counts():
    task = arithmetic(train_size=1, eval_size=1)
    columns = {"answer": "936"}
    assert task.is_correct("<answer>936</answer>", columns) and task.is_correct("<answer> 936. </answer>", columns)
    assert not any(task.is_correct(text, columns) for text in ["936", "<answer>935</answer>", "<answer>936", ""])


def test_sizes_that_do_not_fit_and_sizes_that_are_left_open():
    # One digit, two terms, "+": 81 problems of 45 kinds; ten kinds held out take at most 20 problems with them.
    assert len(arithmetic(digits=1, train_size=61, eval_size=10).train) == 61
    with pytest.raises(TaskError, match=r"only 81 different problems.*45 held-out and 0 training.*lower these"):
        arithmetic(digits=1, eval_size=256)
    few = arithmetic(digits=1)
    assert len(few.held_out) == 8
    assert len(few.train) == 81 - len(
        {(a, b) for p in few.held_out for a, b in [p.columns["terms"], p.columns["terms"][::-1]]}
    )
    assert len(arithmetic(digits=2).held_out) == 256
    assert 8100 - 2 * 256 <= len(arithmetic(digits=2).train) < 8100
    assert (len(arithmetic().train), len(arithmetic().held_out)) == (20_000, 256)


@pytest.mark.parametrize("wrong", [{"digits": 0}, {"terms": 1}, {"operations": ["*"]}, {"operations": []}])
def test_settings_that_make_no_problem(wrong):
    with pytest.raises(TaskError, match="arithmetic needs digits >= 1"):
        arithmetic(**wrong)
