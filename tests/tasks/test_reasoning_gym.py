"""Sets of reasoning-gym by name: no set is special, and no text of a model runs."""

import sys
import time
from importlib.util import find_spec

import pytest

from groupwise.config import load_recipe
from groupwise.errors import TaskError
from groupwise.tasks import build_task, reasoning_gym
from groupwise.tasks.gym.process import GymProcess, process
from groupwise.tasks.gym.task import DEADLINE, is_solved, verified
from groupwise.training.mixture import ABOUT_PROMPTS

pytestmark = pytest.mark.skipif(find_spec("reasoning_gym") is None, reason="needs the extra gym")

SETS = [
    "ab", "acre", "aiw", "arc_1d", "base_conversion", "basic_arithmetic", "bf", "binary_alternation",
    "binary_matrix", "bitwise_arithmetic", "boxnet", "caesar_cipher", "calendar_arithmetic", "chain_sum",
    "circuit_logic", "coin_flip", "color_cube_rotation", "complex_arithmetic", "count_bits", "count_primes",
    "countdown", "course_schedule", "cryptarithm", "decimal_arithmetic", "dice", "family_relationships",
    "fraction_simplification", "game_of_life", "gcd", "graph_color", "group_anagrams", "isomorphic_strings",
    "jugs", "knights_knaves", "largest_island", "lcm", "leg_counting", "letter_counting", "letter_jumble",
    "manipulate_matrix", "maze", "mini_sudoku", "n_queens", "number_filtering", "number_sorting",
    "palindrome_generation", "polynomial_equations", "polynomial_multiplication", "pool_matrix",
    "power_function", "prime_factorization", "products", "propositional_logic", "puzzle24", "rectangle_count",
    "rotate_matrix", "rotten_oranges", "rubiks_cube", "rush_hour", "self_reference", "sentence_reordering",
    "shortest_path", "simple_equations", "simple_geometry", "simple_integration", "sokoban", "spell_backward",
    "spiral_matrix", "string_insertion", "string_manipulation", "sudoku", "syllogism", "time_intervals",
    "tower_of_hanoi", "tsumego", "word_ladder", "word_sorting", "zebra_puzzles",
]  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_any_set_by_name_with_its_own_verifier(name):
    task = reasoning_gym(name=name, train_size=4, eval_size=2, seed=5)
    assert len(task.held_out) == 2
    assert task.train
    assert not {p.prompt for p in task.train} & {p.prompt for p in task.held_out}
    problem = task.train[0]
    nonsense, empty = verified(["<answer>lorem ipsum</answer>", ""], [problem.columns["gym"]] * 2)
    assert 0 <= empty < 1 and 0 <= nonsense < 1
    if task.demonstrations is not None:
        assert is_solved(task.demonstrations(problem), problem.columns)
        assert verified([problem.columns["answer"]], [problem.columns["gym"]]) == [1.0], "without tags too"


def test_the_same_problems_again_in_another_process():
    first = reasoning_gym(name="group_anagrams", train_size=20, eval_size=5, seed=1)
    process().close()
    again = reasoning_gym(name="group_anagrams", train_size=20, eval_size=5, seed=1)
    assert again.train == first.train
    assert again.held_out == first.held_out
    assert reasoning_gym(name="group_anagrams", train_size=20, eval_size=5, seed=2).train != first.train


def test_settings_and_difficulty_are_the_sets_own():
    easy = reasoning_gym(name="chain_sum", difficulty=0, train_size=20, eval_size=1)
    hard = reasoning_gym(name="chain_sum", difficulty=4, settings={"min_terms": 6}, train_size=20, eval_size=1)
    assert all(problem.prompt.count("+") + problem.prompt.count("-") == 1 for problem in easy.train), "two terms"
    spec = hard.train[0].columns["gym"]["settings"]
    assert spec["min_terms"] == 6, "a setting goes before the difficulty"
    assert spec["max_digits"] == 5
    assert all(problem.prompt.count(" + ") + problem.prompt.count(" - ") == 5 for problem in hard.train)
    with pytest.raises(TaskError, match=r"no setting 'min_term' \(did you mean 'min_terms'\?\)"):
        reasoning_gym(name="chain_sum", settings={"min_term": 6})
    with pytest.raises(TaskError, match="max_terms must be >= min_terms"):
        reasoning_gym(name="chain_sum", settings={"min_terms": 9})
    with pytest.raises(TaskError, match=r"no set 'count_down' \(did you mean 'countdown'\?\)"):
        reasoning_gym(name="count_down")
    with pytest.raises(TaskError, match="give one of them"):
        reasoning_gym(name="maze", sets=[{"name": "maze"}])
    with pytest.raises(TaskError, match=r"only \d+ different questions .* lower it"):
        reasoning_gym(name="gcd", settings={"max_value": 3, "max_numbers": 2}, train_size=3, eval_size=100)


def test_several_sets_by_weight():
    sets = [{"name": "chain_sum", "weight": 3.0}, {"name": "gcd"}]
    task = reasoning_gym(sets=sets, train_size=400, eval_size=1, seed=2)
    share = sum(problem.columns["gym"]["set"] == "chain_sum" for problem in task.train) / len(task.train)
    assert 0.68 < share < 0.82
    for name in ("chain_sum", "gcd"):
        problem = next(p for p in task.train if p.columns["gym"]["set"] == name)
        assert is_solved(problem.columns["answer"], problem.columns)


def test_from_a_recipe():
    recipe = load_recipe(
        {
            "model": {"id": "m"},
            "task": {"kind": "reasoning_gym", "sets": [{"name": "gcd", "difficulty": 1}], "train_size": 3},
        }
    ).recipe
    settings = recipe.task.model_dump(exclude=set(ABOUT_PROMPTS))
    task = build_task("reasoning_gym", settings, seed=0, folder=None)
    assert (task.name, len(task.held_out)) == ("reasoning_gym", 100)


HOSTILE = [
    "__import__('os').system('touch {path}')",
    "[__import__('os').system('touch {path}')]",
    "open('{path}', 'w').write('x')",
    "().__class__.__base__.__subclasses__()",
    "exec",
    "lambda: 0",
    "[c for c in ().__class__.__mro__]",
    "preview(x)",
    "lambdify(x, x)",
    "f'{{open(1)}}'",
    "[" * 4000,
    "(" * 4000,
    "'a'*10**9",
    "1 << (1 << 40)",
    "\ud800",
    "\0",
    "9" * 30_000,
]


@pytest.mark.parametrize(
    "name", ["countdown", "n_queens", "string_insertion", "polynomial_multiplication", "spiral_matrix"]
)
def test_no_text_runs(name, tmp_path):
    """Verifiers of these sets put the text into `eval`, directly or inside of sympy."""
    path = tmp_path / "written"
    task = reasoning_gym(name=name, train_size=1, eval_size=1)
    spec = task.train[0].columns["gym"]
    scores = verified([text.format(path=path) if "{path}" in text else text for text in HOSTILE], [spec] * len(HOSTILE))
    assert all(score < 0.2 for score in scores)
    assert not path.exists()
    assert "reasoning_gym" not in sys.modules, "it never runs in this process"


def test_an_answer_that_takes_for_ever_is_wrong_and_the_next_is_graded(monkeypatch):
    monkeypatch.setattr("groupwise.tasks.gym.task.DEADLINE", 0.5)
    assert DEADLINE == 5.0
    task = reasoning_gym(name="countdown", train_size=1, eval_size=1)
    problem, logged = task.train[0], {}
    start = time.monotonic()
    right = problem.columns["answer"]
    scores = verified(["9**9**9**9", right], [problem.columns["gym"]] * 2, log_metric=logged.__setitem__)
    assert scores[0].score == 0.0 and "not done with this answer" in scores[0].why
    assert scores[1] == 1.0
    assert logged == {"gym/over_limit": 0.5}
    assert time.monotonic() - start < 30


def test_a_process_that_is_killed_is_started_again():
    gym = GymProcess()
    assert "countdown" in gym.ask("names", 60)
    gym._process.kill()
    gym._process.wait()
    assert "countdown" in gym.ask("names", 60)
    gym.close()
    assert gym._process is None
