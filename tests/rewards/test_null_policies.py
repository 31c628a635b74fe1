"""Null policies, the hostile corpus, the cache, and the lint that keeps model text from running."""

import ast
import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

import groupwise
from groupwise.rewards import Answers, RewardFunction, grade, load_reward, null_scores
from groupwise.rewards.graders_pace import Pace
from groupwise.rewards.graders_proof import Proof, growth, prove
from groupwise.rewards.hostile import KINDS, hostile_texts
from groupwise.rewards.report import FunctionReport, agreement_of, report_on
from groupwise.types import Problem

PROBLEMS = [Problem(f"p{i}", f"{i} + 5 = ?", {"answer": str(i + 5)}) for i in (10, 20, 30, 40)]


def paying(*rewards):
    return {(score.function, score.policy) for score in asyncio.run(null_scores(rewards, PROBLEMS)) if score.pays}


def test_our_own_rewards_for_right_answers_pay_no_null_policy():
    assert paying(*(load_reward(name) for name in ("correctness", "maths", "choice"))) == set()


def test_a_careless_reward_is_found_out():
    def contains(completions, answer):
        return [float(a in c) for c, a in zip(completions, answer, strict=True)]

    found = paying(RewardFunction("contains", contains), load_reward("length", settings={"target": 0}))
    assert ("contains", "every answer") in found and ("contains", "echo") not in found
    score = next(s for s in asyncio.run(null_scores([RewardFunction("contains", contains)], PROBLEMS)) if s.pays)
    assert (score.mean, score.best, score.graded) == (1.0, 1.0, 4) and "35" in score.sample


def test_null_policies_of_problems_without_answers():
    scores = asyncio.run(null_scores([load_reward("tag_count")], [Problem("p", "hello")]))
    assert {score.policy: score.best for score in scores}["only the layout"] == 0.5


def test_the_corpus_is_the_same_for_a_seed_and_has_every_kind():
    first = list(hostile_texts(70, seed=3))
    assert first == list(hostile_texts(70, seed=3)) != list(hostile_texts(70, seed=4))
    assert {kind for kind, _ in first} == set(KINDS)


def test_built_in_graders_hold_against_hostile_texts():
    heard = []
    proof = prove(105, seed=1, heard=lambda done, total: heard.append((done, total)), rounds=2)
    assert (proof.texts, proof.unknown, proof.changed) == (105, 0, 0)
    assert proof.slowest < 4.0
    assert proof.growth is None, "of a hundred texts nothing can be said"
    assert heard == [(100, 210), (105, 210), (155, 210), (210, 210)]
    low, high = proof.pace.interval
    assert low <= proof.pace.slowdown <= high
    assert 2 == len(proof.pace.before) <= len(proof.pace.after) <= 8


def test_complaints_name_what_does_not_hold():
    pace = Pace((), load_reward("boxed"), before=[1.1] * 30, answers_a_second=100.0, after=[1.1] * 30)
    good = Proof(10, 1.0, unknown=0, limited=3, slowest=1.0, changed=0, growth=0.01, pace=pace)
    assert good.complaints == [] == replace(good, growth=None).complaints
    slower = replace(pace, after=[1.2] * 30)
    bad = replace(good, unknown=2, slowest=9.0, changed=1, growth=0.2, pace=slower)
    assert len(bad.complaints) == 5 and "2 texts could not be graded" in bad.complaints[0]
    assert bad.complaints[-1] == "grading takes 1.09 times as long as before (1.09 to 1.09)"


def test_noise_is_no_proof_of_equal_pace():
    # Of 30 rounds 14 are twice as slow: the median is 1, and with 95 % certainty within ranks 9 to 22.
    pace = Pace((), load_reward("boxed"), before=[1.1], answers_a_second=100.0, after=[1.1] * 16 + [2.2] * 14)
    assert pace.interval == pytest.approx((1.0, 2.0))
    unsure = replace(pace, before=[1.0] * 16 + [2.0] * 14, after=[1.0] * 30)
    assert unsure.interval == pytest.approx((0.0, 1.0)), "what it is compared with is uncertain, too"
    assert pace.complaint.startswith("not shown that grading is as fast as before: grading takes 1.00 times as long")


def test_memory_is_compared_in_a_steady_state():
    assert growth([5, 10, 10, 10, 10, 10, 10, 11]) == pytest.approx(0.1), "the first eighth only warms up"
    assert growth([9, 9, 10, 10, *[10] * 10, 10, 10]) == 0.0
    assert growth([float(n) for n in range(100, 116)]) == pytest.approx(114.5 / 102.5 - 1), "a steady leak"


# --- the cache ------------------------------------------------------------------------------------------------------


def test_the_same_text_for_the_same_problem_is_graded_once(tmp_path):
    (tmp_path / "counted.py").write_text(
        "seen = []\ndef judge(completions, log_extra):\n    seen.extend(completions)\n"
        "    log_extra('new', completions)\n    return [float(len(seen))] * len(completions)\n"
    )
    reward = load_reward("counted.py:judge", folder=tmp_path, cache=True)
    rows = Answers(["p", "p", "q"], ["a", "a", "a"], [(1,)] * 3, ["stop"] * 3)
    assert [row.reward for row in asyncio.run(grade([reward], rows))] == [2.0, 2.0, 2.0]  # two are different
    assert [row.reward for row in asyncio.run(grade([reward], rows))] == [2.0, 2.0, 2.0]
    more = Answers(["p", "p"], ["a", "b"], [(1,)] * 2, ["stop"] * 2)
    assert [row.reward for row in asyncio.run(grade([reward], more))] == [2.0, 3.0]
    time.sleep(0.01)
    (tmp_path / "counted.py").write_text("def judge(completions):\n    return [9.0] * len(completions)\n")
    again = load_reward("counted.py:judge", folder=tmp_path, cache=True)
    assert [row.reward for row in asyncio.run(grade([again], more))] == [9.0, 9.0]


def test_unknown_grades_are_not_kept():
    calls = []

    def fails_first(completions):
        calls.append(len(completions))
        if len(calls) == 1:
            raise RuntimeError("no")
        return [1.0] * len(completions)

    reward = RewardFunction("fails_first", fails_first, cache=True)
    rows = Answers(["p"], ["only once"], [(1,)], ["stop"])
    assert [asyncio.run(grade([reward], rows))[0].outcome for _ in range(3)] == ["unknown", "scored", "scored"]
    assert calls == [1, 1]


# --- the report -----------------------------------------------------------------------------------------------------


def test_a_penalty_of_nothing_reads_as_nothing():
    (report,) = asyncio.run(report_on([load_reward("repetition")], Answers(["q"], ["a b c d"], [(1,)], ["stop"])))
    assert [f"{value:g}" for value in (*report.summary.values(), report.commonest()[0][0])] == ["0"] * 6


def test_agreement_by_hand():
    def of(*parts):
        return FunctionReport("f", parts, {}, "", 1.0)

    assert agreement_of(of(1.0, 0.0, 1.0), of(2.0, 0.0, 0.0)) == (0.5000000000000001, 2 / 3)
    assert agreement_of(of(1.0, 1.0), of(2.0, 0.0))[0] is None
    assert agreement_of(of(1.0, None), of(None, 2.0))[0] is None


def test_a_report_has_distribution_time_and_failures():
    def judge(completions):
        return [float(text) if text else None for text in completions]

    rows = Answers(["p"] * 4, ["1", "3", "", "x"], [(1,)] * 4, ["stop"] * 4)
    (report,) = asyncio.run(report_on([RewardFunction("judge", judge)], rows))
    assert report.parts == (1.0, 3.0, None, None)
    assert report.summary == {"mean": 2.0, "std": 1.0, "min": 1.0, "median": 2.0, "max": 3.0}
    assert report.outcomes == {"scored": 2, "ungraded": 1, "unknown": 1}
    assert "could not convert string to float: 'x'" in report.why and report.milliseconds > 0


# --- no text of a model runs ----------------------------------------------------------------------------------------

PACKAGE = Path(groupwise.__file__).parent
FORBIDDEN = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "pty", "subprocess"}
SANDBOX = Path("rewards/code")
"""Runs what models write, behind its layers, and has checks of its own."""
ALLOWED = {
    Path("rewards/isolated/process.py"): {"imports subprocess"},
    Path("tasks/gym/process.py"): {"imports subprocess"},
    Path("tasks/gym/guards.py"): {".parse_expr", ".literal_eval"},  # what stands between verifiers and these
    Path("models/compiled.py"): {"imports subprocess", ".system"},  # a compiler, over a source of ours
    Path("training/watchdog.py"): {"imports subprocess"},  # a listener of our own
    Path("cli/resume_proof.py"): {"imports subprocess"},  # `groupwise train` on the user's recipe
    Path("cli/sample.py"): {".system"},  # the field of that name
}
"""What each file outside of the sandbox may do that no other may."""


def complaints(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN:
            yield f"{node.func.id}()"
        if isinstance(node, ast.keyword) and node.arg == "shell":
            yield "shell="
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            if name.split(".")[0] in (
                "pickle",
                "cPickle",
                "dill",
                "cloudpickle",
                "marshal",
                "shelve",
                "pty",
                "subprocess",
            ):
                yield f"imports {name}"
        if isinstance(node, ast.Attribute) and node.attr in (
            "system",
            "popen",
            "parse_expr",
            "sympify",
            "literal_eval",
        ):
            yield f".{node.attr}"


def test_nothing_in_the_package_runs_what_a_model_wrote():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        relative = path.relative_to(PACKAGE)
        if not relative.is_relative_to(SANDBOX) and (words := set(complaints(ast.parse(path.read_text())))):
            found[relative] = words
    assert found == ALLOWED


def test_the_lint_sees_what_it_is_there_for():
    bad = (
        "import pickle\nimport subprocess\nfrom marshal import loads\neval(text)\nos.system(text)\nrun(x, shell=True)\n"
    )
    assert len(list(complaints(ast.parse(bad)))) == 6


def started(path):
    """What the one process that a file starts is started with."""
    tree = ast.parse((PACKAGE / path).read_text())
    (command,) = (
        ast.unparse(n.args[0])
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and ast.unparse(n.func) == "subprocess.Popen"
    )
    return command


def test_what_a_process_is_started_with_holds_no_text_of_a_model():
    assert started("rewards/isolated/process.py") == (
        "[sys.executable, '-c', _START, str(there.fileno()), str(lifeline), _PACKAGE]"
    )
    assert started("tasks/gym/process.py") == "[sys.executable, '-m', 'groupwise.tasks.gym.server']"
