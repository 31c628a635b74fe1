"""Problems drawn by difficulty: what is remembered, who is drawn, and that a restored one goes on the same way."""

import json

import pytest

from groupwise.config.problems import ProblemsSection
from groupwise.training.problems import ByDifficulty, InOrder, problems_of
from groupwise.types import Completion, Group, Problem, Rollout

PROBLEMS = [Problem(f"p{i}", "?") for i in range(40)]


def group(name, *rewards):
    completion = Completion((5,), (-1.0,), "stop", "x")
    return Group(Problem(name, "?"), (4,), tuple(Rollout(completion, reward=reward) for reward in rewards))


def by_difficulty(**settings):
    return ByDifficulty(PROBLEMS, 7, ProblemsSection(order="difficulty", **settings))


def solved(number):
    """Half of the problems are always solved, a quarter never, a quarter every second time."""
    return 1.0 if number % 2 else (0.0 if number % 4 else 0.5)


def taught(problems, steps):
    drawn = []
    for _ in range(steps):
        batch = problems.next(4)
        drawn.append([problem.id for problem in batch])
        for problem in batch:
            rate = solved(int(problem.id[1:]))
            problems.observe([group(problem.id, *([1.0] * int(8 * rate) + [0.0] * (8 - int(8 * rate))))])
    return drawn


def test_in_order_is_every_problem_once_an_epoch_and_can_be_resumed():
    problems = problems_of(ProblemsSection(), PROBLEMS, 3)
    assert isinstance(problems, InOrder)
    first = [problems.next(8) for _ in range(5)]
    assert sorted(p.id for batch in first for p in batch) == sorted(p.id for p in PROBLEMS)
    assert problems.epoch == 1.0
    state = json.loads(json.dumps(problems.state()))
    expected = problems.next(8)
    again = InOrder(PROBLEMS, 3)
    again.restore(state)
    assert again.next(8) == expected


def test_what_was_seen_fades_each_time_a_problem_is_seen_again():
    problems = by_difficulty(memory=0.5)
    assert problems.pass_rate("p1") is None
    problems.observe([group("p1", 0.0, 0.0, 0.0, 1.0), group("p2", None, None)])
    assert problems.pass_rate("p1") == 0.25
    assert problems.pass_rate("p2") is None
    problems.observe([group("p1", 1.0, 1.0, 1.0, 1.0)])
    # half of 1 of 4, and 4 of 4
    assert problems.pass_rate("p1") == pytest.approx((0.5 + 4) / (2 + 4))


def test_rewards_of_any_size_count_by_their_place_in_the_range_that_was_seen():
    problems = by_difficulty()
    problems.observe([group("p1", -2.0, -2.0)])
    assert problems.pass_rate("p1") is None  # all rewards so far are equal
    problems.observe([group("p2", 2.0, 0.0)])
    assert (problems.pass_rate("p1"), problems.pass_rate("p2")) == (0.0, 0.75)
    passing = by_difficulty(passing=1.0)
    passing.observe([group("p1", 0.9, 1.0, 7.0)])
    assert passing.pass_rate("p1") == pytest.approx(2 / 3)


def test_it_comes_to_draw_what_is_solved_every_second_time():
    problems = by_difficulty(candidates=4.0)
    drawn = taught(problems, 60)
    early, late = (
        sum(solved(int(name[1:])) == 0.5 for batch in part for name in batch) for part in (drawn[:5], drawn[-20:])
    )
    assert early <= 12  # a quarter of all problems are such, of 20 draws about 5
    assert late >= 60  # of 80 draws
    easy = by_difficulty(candidates=4.0, target=1.0)
    assert sum(solved(int(name[1:])) == 1.0 for batch in taught(easy, 60)[-20:] for name in batch) >= 60


def test_with_one_candidate_each_nobody_is_passed_over():
    problems = by_difficulty(candidates=1.0)
    assert sorted(name for batch in taught(problems, 10) for name in batch) == sorted(p.id for p in PROBLEMS)
    assert problems.epoch == 1.0


def test_a_restored_one_draws_what_the_other_draws():
    problems = by_difficulty()
    taught(problems, 9)
    again = by_difficulty()
    again.restore(json.loads(json.dumps(problems.state())))
    assert taught(again, 9) == taught(problems, 9)
    assert again.state() == problems.state()
    assert taught(by_difficulty(), 9) == taught(by_difficulty(), 9)
