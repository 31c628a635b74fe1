"""Mathematical answers: three stages, and texts that are meant to break them (R1, R4, R5)."""

import json
import time
from asyncio import run
from pathlib import Path

import pytest

from groupwise.errors import RewardError
from groupwise.rewards import Answers, RewardFunction, Unknown, Wrong, as_reward, grade, hash_answer, is_right_maths
from groupwise.rewards.isolated.items import Done, Items
from groupwise.rewards.maths import verify
from groupwise.rewards.maths.bounds import too_large
from groupwise.rewards.maths.spelling import compared
from groupwise.rewards.maths.verify import maths, verdicts

needs_math_verify = pytest.mark.skipif(not verify._available("auto"), reason="math-verify is not installed")
ROWS = Path(__file__).parents[1] / "data" / "gsm8k"

R4 = r"\dfrac{5^{(5^{(5^{(5^5)})}-4)}-5}{16}"
R5 = [r"\frac{" * 400 + "1" + "}{2}" * 400, "(" * 3000 + "1" + ")" * 3000, "(10^8)!", "9^{9^{9^9}}"]


@pytest.mark.parametrize(
    ("found", "gold", "verdict"),
    [
        ("72", "72", "exact"),
        (" 7  2 ", "7 2", "exact"),
        (r"\$1,234.50", "1234.5", "numeric"),
        ("$18", "18", "numeric"),
        ("18 dollars per day.", "18", "numeric"),
        ("1{,}000", "1000", "numeric"),
        ("50%", "0.5", "numeric"),
        ("50%", "50", "numeric"),
        ("0.5", r"50\%", "numeric"),
        ("5", "0.05", "different"),
        (r"1.2 \times 10^{3}", "1200", "numeric"),
        ("3 x 10^-2", "0.03", "numeric"),
        ("1e3", "1000", "numeric"),
        ("1 1/2", "1.5", "numeric"),
        (r"-2\frac{1}{4}", "-9/4", "numeric"),
        (r"\frac{3}{4}", "0.75", "numeric"),
        (r"12 \text{ cm}", "12", "numeric"),
        ("5 m", "5", "numeric"),
        (r"45^\circ", "45", "numeric"),
        ("x = 5", "5", "numeric"),
        ("(5)", "5", "numeric"),
        ("-5", "5", "different"),
        ("7.2", "72", "different"),
        ("5x", "5", "undecided"),
        ("5 x", "5", "undecided"),
        ("3, 4", "3", "undecided"),
        ("48 + 24", "72", "different"),  # a calculation is no answer
        (r"6 \times 12", "72", "different"),
        ("x+1", "1+x", "undecided"),
        ("1/0", "5", "undecided"),
    ],
)
def test_texts_and_numbers_are_decided_without_a_parser(found, gold, verdict):
    assert compared(found, gold) == verdict


@needs_math_verify
@pytest.mark.parametrize(
    ("found", "gold", "verdict"),
    [
        (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}", "symbolic"),
        ("x+1", "1+x", "symbolic"),
        ("x+1", "x+2", "different"),
        (r"\{1,2\}", r"\{2,1\}", "symbolic"),
        (r"\frac12", "0.5", "symbolic"),
        ("2^{10}", "1024", "symbolic"),
        (r"(-\infty, 3]", r"(-\infty,3]", "symbolic"),
        ("[0,1)", "[0,1]", "different"),
        (r"\text{nonsense} {{", "4", "different"),
    ],
)
def test_expressions_are_compared_as_expressions(found, gold, verdict):
    assert verdicts([(found, gold)]) == [verdict]


def test_what_is_too_large_is_found_by_counting():
    started = time.perf_counter()
    for text in [R4, *R5, "9" * 200_000, "^" * 100_000, "!" * 100_000, "[" * 1_000_000]:
        assert too_large(text), text[:50]
    assert time.perf_counter() - started < 1
    for text in [r"\frac{1}{2}", "2^{10}", "5!", r"x^{2}+3x-4", r"\sqrt[3]{x^2+1}", "a^2b^3", r"2^{\frac{n}{2}}"]:
        assert too_large(text) is None, text


@needs_math_verify
def test_pathological_answers_end_in_time_and_cost_nothing_afterwards():
    fine = [(rf"\frac{{{i}}}{{\sqrt{{2}}}}", rf"\frac{{{i}\sqrt{{2}}}}{{2}}") for i in range(3, 13)]
    assert verdicts(fine) == ["symbolic"] * 10
    # The bounds catch them all; here the processes meet them bare.
    verifier = Items("groupwise.rewards.maths.symbolic:same", preload=("math_verify",), seconds=0.5, processes=2)
    try:
        assert verifier.map(fine) == [Done(True)] * 10
        before = [child.process for child in verifier._children]
        started = time.monotonic()
        results = verifier.map([[text, "1"] for text in [R4, R4, R4, *R5[1:3]]])
        assert time.monotonic() - started < 5 * 0.5 * 2 + 5
        assert results[:3] == [Wrong("took more than 0.5 s of CPU time")] * 3
        assert all(isinstance(result, Wrong) or result == Done(False) for result in results)
        assert verifier.map(fine) == [Done(True)] * 10
        assert before != [child.process for child in verifier._children], "those that hung were replaced"
    finally:
        verifier.close()


def test_a_hostile_expression_is_never_evaluated(tmp_path):
    target = tmp_path / "owned"
    attacks = [
        f"[open('{target}', 'w').write('x')]",
        f"__import__('pathlib').Path('{target}').touch()",
        rf"\text{{__import__('os').system('touch {target}')}}",
        f"(lambda: open('{target}', 'w'))()",
    ]
    for attack in attacks:
        for text in (attack, rf"\boxed{{{attack}}}", f"<answer>{attack}</answer>"):
            assert not is_right_maths(text, "5")
    assert not target.exists()


def test_the_reward_says_whose_fault_it_is(monkeypatch):
    reward = as_reward(maths, settings={"wrong": -1.0})
    texts = [r"\boxed{\frac{1}{2}}", "<answer>0.5</answer>", "0.7", "<answer>", "x", r"\boxed{" + R5[0] + "}"]
    marks = reward.function(texts, ["0.5", 0.5, "0.5", "0.5", None, "0.5"], **reward.settings)
    assert marks[:5] == [1.0, 1.0, -1.0, -1.0, None]
    if verify._available("auto"):
        assert marks[5] == Wrong("no answer to be read as an expression: 4,001 characters, more than 600", -1.0)
    with pytest.raises(RewardError, match="gold answer of row 0 is a list"):
        maths(["5"], [["5"]])
    monkeypatch.setattr(verify, "verdicts", lambda pairs, **settings: [Unknown("the process is gone")] * len(pairs))
    assert maths(["5"], ["5"]) == [Unknown("the process is gone")]


def test_without_math_verify_numbers_still_count(monkeypatch):
    monkeypatch.setattr(verify.importlib.util, "find_spec", lambda name: None)
    assert maths(["0.50", "x+1"], ["1/2", "1+x"]) == [1.0, 0.0]
    with pytest.raises(RewardError, match=r"pip install 'groupwise\[math\]'"):
        maths(["1"], ["1"], symbolic="always")


def test_gold_answers_are_right_and_others_are_not():
    lines = [json.loads(line) for name in ("train", "test") for line in (ROWS / f"{name}.jsonl").open()]
    golds = [hash_answer(line["answer"]) for line in lines]
    assert len(golds) > 5
    worked = [line["answer"] for line in lines]
    assert maths(worked, golds) == [1.0] * len(golds)
    others = [f"<answer>{gold}1</answer>" for gold in golds]
    assert maths(others, golds) == [0.0] * len(golds)


# --- processes for single texts -------------------------------------------------------------------------------------

HERE = """
import os, signal, time
def work(item):
    kind, value = item
    if kind == "sleep": time.sleep(value)
    if kind == "spin":
        while True: pass
    if kind == "crash": os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "eat": bytearray(value << 20)
    if kind == "raise": raise ValueError("no")
    if kind == "deep": return work(item)
    return os.getpid()
"""


@pytest.fixture
def items(tmp_path, monkeypatch):
    (tmp_path / "work_on_items.py").write_text(HERE)
    monkeypatch.syspath_prepend(str(tmp_path))
    verifier = Items("work_on_items:work", seconds=0.3, megabytes=256, processes=2)
    yield verifier
    verifier.close()


def test_every_way_to_fail_is_told_apart_and_stops_nobody_else(items):
    asked = [["ok", 1], ["spin", 0], ["eat", 1000], ["deep", 0], ["crash", 0], ["raise", 0], ["sleep", 60], ["ok", 1]]
    results = items.map(asked)
    assert isinstance(results[0], Done) and isinstance(results[7], Done)
    assert results[1:6] == [
        Wrong("took more than 0.3 s of CPU time"),
        Wrong("ran out of memory"),
        Wrong("ran out of stack"),
        Wrong("crashes the verifier (SIGSEGV)"),
        Unknown("ValueError: no"),
    ]
    assert isinstance(results[6], Unknown) and "no answer within 0.9 s" in results[6].why


def test_processes_are_replaced_before_anything_piles_up(items, monkeypatch):
    monkeypatch.setattr("groupwise.rewards.isolated.items._REPLACED_AFTER", 5)
    seen = {result.value for result in items.map([["ok", 1]] * 40)}
    assert len(seen) >= 8
    assert len(items._children) <= 2


def test_the_process_that_forks_may_die_too(items):
    assert isinstance(items.map([["ok", 1]])[0], Done)
    items._server._popen.kill()
    results = items.map([["ok", 1]] * 3)
    assert all(isinstance(result, Done | Unknown) for result in results)
    assert all(isinstance(result, Done) for result in items.map([["ok", 1]] * 3))


def test_many_slow_texts_together_are_no_function_that_hangs(items):
    """12 times 0.3 s in two processes take longer than the deadline, and each of them is in time."""

    def checked(completions):
        return items.map([[text, 0] for text in completions], lambda row: completions[row])

    rows = Answers(["p"] * 12, ["spin"] * 12, [(1,)] * 12, ["stop"] * 12)
    assert {one.outcome for one in run(grade([RewardFunction("checked", checked, deadline=1.5)], rows))} == {"wrong"}


def test_maths_says_which_rows_its_parser_is_done_with():
    pairs, heard = [("5", "5"), (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"), (None, "x")], []
    assert verdicts(pairs, heard=heard.append)[0] == "exact"
    assert heard == ([1] if verify._available("auto") else [])
