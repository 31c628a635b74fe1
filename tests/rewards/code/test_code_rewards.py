"""Code rewards: what is right, what is wrong, what is nobody's fault; and the cheats that other graders pay for."""

import asyncio

import pytest

from groupwise.errors import RewardError
from groupwise.rewards import Answers, GradingLog, Unknown, Wrong, as_reward, grade
from groupwise.rewards.code import (
    SandboxSettings,
    UnitTests,
    boundary_of,
    code_stdio,
    code_tests,
    in_sandbox,
    open_sandbox,
    shared,
)
from groupwise.rewards.code.compare import same_output
from groupwise.rewards.code.extract import program_of

SETTINGS = SandboxSettings(cpu_seconds=1.0, wall_seconds=3.0, at_once=8)


@pytest.fixture(scope="module")
def sandbox():
    try:
        return shared(SETTINGS)
    except RewardError as error:
        pytest.skip(f"no code sandbox on this machine: {error}")


def graded(function, programs, log=None, settings=None, **columns):
    """The outcome and the part of each program, all for one problem."""
    rows = [f"Here:\n```python\n{program}\n```" for program in programs]
    answers = Answers(
        ["p"] * len(rows),
        rows,
        [[0]] * len(rows),
        ["stop"] * len(rows),
        {name: [value] * len(rows) for name, value in columns.items()},
    )
    [reward] = in_sandbox([as_reward(function, settings=settings)], SETTINGS)
    grades = asyncio.run(grade([reward], answers, log=log))
    return [(each.outcome, each.parts[reward.name]) for each in grades]


ADD = [{"input": "1 2\n", "output": "3\n"}, {"input": "20 22\n", "output": "42\n"}]
SUM = "print(sum(map(int, input().split())))"


def test_programs_are_graded_by_what_they_print(sandbox):
    programs = [SUM, "print(3)", "x = (", "import sys\n" + SUM + "\nsys.exit(1)"]
    assert graded(code_stdio, programs, tests=ADD) == [
        ("scored", 1.0),
        ("scored", 0.0),
        ("scored", 0.0),
        ("scored", 0.0),  # the right output, and an exit status that says that it failed
    ]
    assert graded(code_stdio, ["print(3)"], settings={"partial": True}, tests=ADD) == [("scored", 0.5)]


@pytest.mark.parametrize(
    "tests",
    [
        ADD,
        {"inputs": ["1 2\n", "20 22\n"], "outputs": ["3\n", "42\n"]},
        '{"inputs": ["1 2", "20 22"], "outputs": ["3", "42"]}',
        '[{"input": "1 2", "output": "3"}]',
        {"input": [["1 2"]], "output": [["3"]]},
    ],
)
def test_inputs_and_outputs_come_in_the_shapes_that_are_in_use(sandbox, tests):
    assert graded(code_stdio, [SUM], tests=tests) == [("scored", 1.0)]


@pytest.mark.parametrize("tests", [None, [], "x", '{"inputs": ["1"]}', [1], [{"input": "1"}]])
def test_a_row_without_tests_is_named(sandbox, tests):
    with pytest.raises(RewardError, match=r"row 0: the column tests .* map another column to it"):
        asyncio.run(code_stdio([SUM], [tests], lambda name, value: None, sandbox=SETTINGS))


def test_limits_that_a_program_hits_are_its_own_fault_and_are_counted(sandbox):
    log = GradingLog()
    programs = [
        "while True: pass",
        "import time\ntime.sleep(100)",
        "x = bytearray(8 << 30)",
        "import os\nos.kill(os.getppid(), 9)",
    ]
    marks = graded(code_stdio, programs, log, tests=ADD[:1])
    assert marks == [("wrong", 0.0), ("wrong", 0.0), ("scored", 0.0), ("wrong", 0.0)]
    assert log.metrics == {
        "sandbox/violations": 0.25,
        "sandbox/too_slow": 0.5,
        "sandbox/crashed": 0.25,
        "sandbox/unknown": 0.0,
    }


MBPP = ["assert add(1, 2) == 3", "assert add(20, 22) == 42", "assert add('a', 'b') == 'ab'"]
HUMAN_EVAL = {
    "tests": "METADATA = {}\n\ndef check(candidate):\n    assert candidate([1.0, 2.0], 0.5) is False\n"
    "    for n in range(5):\n        assert candidate([n, n], 0.1)\n",
    "prelude": "from typing import List\n\ndef close(numbers: List[float], by: float):\n    ''' any closer '''\n",
    "entry_point": "close",
}
CLOSE = "def close(numbers: List[float], by): return any(abs(a - b) < by for a, b in zip(numbers, numbers[1:]))"


def test_functions_are_graded_by_asserts(sandbox):
    right, half, none = "def add(a, b): return a + b", "def add(a, b): return 3", "def other(a, b): return a + b"
    assert graded(code_tests, [right, half, none], tests=MBPP) == [("scored", 1.0), ("scored", 0.0), ("scored", 0.0)]
    assert graded(code_tests, [half], settings={"partial": True}, tests=MBPP) == [("scored", 1 / 3)]


def test_functions_are_graded_by_check(sandbox):
    assert graded(code_tests, [CLOSE, "def close(n, b): return True"], **HUMAN_EVAL) == [
        ("scored", 1.0),
        ("scored", 0.0),
    ]


def passes(program, *tests, **more):
    return asyncio.run(shared(SETTINGS).test(program, UnitTests(tests, **more)))


def test_values_arrive_as_they_were_returned(sandbox):
    echo = "def f(x): return x"
    for value in (
        "(1, 2.5, 'x', None, True)",
        "{1: [2, {3}], (4, 5): b'6'}",
        "10 ** 5000",
        "float('inf')",
        "complex(1, -2)",
        "'\\ud800'",
        "frozenset([1])",
        "range(3)",
        "__import__('collections').deque([1])",
        "__import__('decimal').Decimal('0.1')",
        "__import__('fractions').Fraction(1, 3)",
        "__import__('datetime').date(2026, 3, 1)",
    ):
        result = passes(echo, f"x = {value}\ny = f(x)\nassert x == y and type(x) is type(y)", entry_point="f")
        assert result.passed == (True,), (value, result)


def test_subclasses_arrive_as_what_they_are_made_of(sandbox):
    program = (
        "from collections import Counter, namedtuple\nimport enum\nP = namedtuple('P', 'x y')\n"
        "class E(enum.IntEnum):\n    A = 7\ndef f(): return [P(1, 2), Counter('aab'), E.A]"
    )
    assert passes(program, "assert f() == [(1, 2), {'a': 2, 'b': 1}, 7]").share == 1


def test_what_stays_with_the_program_can_be_used(sandbox):
    program = (
        "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
        "    def pop(self): return self.items.pop()\n    def __len__(self): return len(self.items)\n"
        "    def __getitem__(self, n): return self.items[n]\n    def __repr__(self): return 'Stack'\n"
        "def count(n):\n    for i in range(n): yield i\n"
        "class Node:\n    def __init__(self, x): self.x, self.next = x, None\n"
        "def last(node):\n    while node.next: node = node.next\n    return node.x\n"
    )
    stack = "s = Stack()\ns.push(1)\ns.push([2])\nassert len(s) == 2 and s[0] == 1\nassert s.pop() == [2]"
    nodes = "a, b = Node(1), Node(2)\na.next = b\nassert last(a) == 2 and a.next == b and a != b"
    assert passes(program, stack + "\nassert repr(s) == 'Stack'\nassert s.items == [1]").share == 1
    assert passes(program, "assert list(count(3)) == [0, 1, 2]\nassert sum(count(4)) == 6").share == 1
    assert passes(program, nodes).share == 1


def test_what_is_changed_in_place_is_changed_for_the_tests(sandbox):
    program = "def f(x, y): x.sort(); y['n'] = len(x)"
    assert (
        passes(program, "a, b = [3, 1, 2], {}\nassert f(a, b) is None\nassert a == [1, 2, 3] and b == {'n': 3}").share
        == 1
    )


def test_exceptions_arrive(sandbox):
    program = "class Mine(ValueError): pass\ndef f(x):\n    if x < 0: raise Mine('below 0')\n    return 1 // x"
    assert passes(
        program,
        "try:\n    f(-1)\nexcept ValueError as e:\n    assert str(e) == 'below 0'\nelse:\n    assert False",
        "try:\n    f(0)\nexcept ZeroDivisionError:\n    pass\nelse:\n    assert False",
    ).passed == (True, True)


def test_names_like_pythons_own_are_the_programs_if_they_are_what_is_tested(sandbox):
    # MBPP has `assert sum(10,15) == 6`: the sum of common divisors.
    assert passes("def sum(a, b): return 6", "assert sum(10, 15) == 6").share == 1
    assert passes("x = 1", "assert sum(10, 15) == 6").share == 0
    assert passes("x = 1", "assert gcd(10, 15) == 5").share == 0
    assert passes("def gcd(a, b): return 5", "assert gcd(10, 15) == 5").share == 1


def test_pytest_and_unittest_style(sandbox):
    tests = "from solution import f\nimport unittest\n\ndef test_f():\n    assert f(1) == 2\n"
    cases = tests + "class T(unittest.TestCase):\n    def test_g(self):\n        self.assertEqual(f(2), 3)\n"
    for put in (tests, cases):
        assert passes("def f(x): return x + 1", put).share == 1
        assert passes("def f(x): return 0", put).share == 0


F = "assert f(3) == 7"
CHEATS = {
    "exit": "import os\ndef f(x): os._exit(0)",
    "exit at once": "import os\nos._exit(0)",
    "exit handler": "import atexit\natexit.register(lambda: print('passed'))\ndef f(x): raise SystemExit(0)",
    "equal to everything": "class E:\n    def __eq__(self, o): return True\n    def __ne__(self, o): return False\n"
    "def f(x): return E()",
    "equal to everything, a number": "class E(int):\n    def __eq__(self, o): return True\ndef f(x): return E(1)",
    "equal to everything, in a list": "class E(list):\n    def __eq__(self, o): return True\ndef f(x): return E([1])",
    "numpy's way": "class E:\n    __module__ = 'numpy'\n    shape = ()\n    def item(self): return self\n"
    "    def __eq__(self, o): return True\ndef f(x): return E()",
    "walk the frames": "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n"
    "        for v in (*frame.f_locals.values(), *frame.f_globals.values()):\n"
    "            if v == 7: return v\n        frame = frame.f_back\n",
    "search the memory": "import gc\ndef f(x):\n    for o in gc.get_objects():\n"
    "        if isinstance(o, (str, bytes)) and 'assert' in str(o): return 7\n",
    "patch the comparison": "import builtins\nbuiltins.isinstance = lambda *a: True\n"
    "import operator\noperator.eq = lambda a, b: True\ndef f(x): return 0",
    "patch the exception": "import builtins\nbuiltins.AssertionError = ValueError\ndef f(x): return 0",
    "write a verdict": "import os, json\nfor fd in range(3, 20):\n    try:\n"
    "        os.write(fd, json.dumps({'tests': [['passed', '']], 'nonce': ''}).encode() + b'\\n')\n"
    "    except OSError: pass\ndef f(x): return 0",
    "answer in advance": "import os, json\n[os.write(4, json.dumps({'id': '0', 'value': 7}).encode() + b'\\n')"
    " for _ in range(9)]\ndef f(x): return 0",
    "more than a message": "import os\ndef f(x):\n    while True: os.write(4, b'x' * 65536)",
    "no message": "import os\ndef f(x):\n    os.write(4, b'[[[[' * 10000 + b'\\n')\n",
    "end the iteration": "def f(x): raise StopIteration",
    "a value that never ends": "def f(x):\n    x = []\n    x.append(x)\n    return x",
    "an assertion": "def f(x): raise AssertionError",
    "close the line": "import os\nos.close(4)\ndef f(x): return 7",
    "a name of the tests": "class f:\n    def __new__(cls, x): return cls\n",
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheats_score_nothing(sandbox, name):
    result = passes(CHEATS[name], F, "assert all(map(lambda c: f(c) == 7, [1, 2]))")
    assert result.is_known
    assert result.share == 0, result


RAISES = "class Node:\n    def __init__(self, x): raise ValueError('no')\ndef f(x): return 7"
GRADED_BY_NOBODY = {
    "breaks the setup": (RAISES, {"setup": "root = Node(1)"}),
    "lacks what the setup uses": ("def f(x): return 7", {"setup": "root = Node(1)"}),
    "raises when its names are looked at": ("class L(list):\n    def __iter__(self): raise ValueError\nf = L()", {}),
    "names that are too large": (
        "import os, json\nasked = json.loads(os.read(4, 65536))\n"
        "answer = {'id': asked['id'], 'value': {'f': ['Fraction', '1e3000000000']}}\n"
        "os.write(4, json.dumps(answer).encode() + b'\\n')",
        {},
    ),
    "names that are none": (
        "import os, json\nasked = json.loads(os.read(4, 65536))\n"
        "os.write(4, json.dumps({'id': asked['id'], 'value': [1]}).encode() + b'\\n')",
        {},
    ),
    "too deep to be handed back": (
        "from collections import deque\nimport os, json\ndef f(x):\n    value = ['deque', []]\n"
        "    for _ in range(65): value = ['list', [value]]\n"
        "    import sys\n    asked = sys._getframe(2).f_locals['asked']\n"
        "    os.write(4, json.dumps({'id': asked['id'], 'value': value}).encode() + b'\\n')\n    os._exit(0)\n",
        {},
    ),
    "lowers its own limit": (
        "import resource\ndef f(x):\n    try: resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\n"
        "    except ValueError: pass\n    while True: pass\n",
        {},
    ),
}


@pytest.mark.parametrize("name", GRADED_BY_NOBODY)
def test_no_program_can_choose_to_be_graded_by_nobody(sandbox, name):
    # What is unknown takes no part in the gradient: whoever fails would choose it.
    program, more = GRADED_BY_NOBODY[name]
    result = passes(program, "assert f(f(3)) == 7", **more)
    assert result.is_known, result
    assert result.share == 0, result


def test_a_setup_that_breaks_by_itself_is_unknown(sandbox):
    result = passes("def f(x): return 7", "assert f(3) == 7", setup="x = 1 / 0")
    assert not result.is_known
    assert "the tests themselves do not run: ZeroDivisionError" in result.detail


def test_a_program_that_waits_at_each_input_is_wrong_before_its_deadline(sandbox):
    settings = SandboxSettings(wall_seconds=0.3, at_once=8)
    waits = "import time\ntime.sleep(0.25)\nprint(1)"
    marks = asyncio.run(
        code_stdio([waits], [[{"input": "", "output": "1"}] * 40], lambda name, value: None, sandbox=settings)
    )
    assert isinstance(marks[0], Wrong)
    assert "all inputs together took 2 s" in marks[0].why or "all inputs together took 3 s" in marks[0].why


@pytest.mark.parametrize(
    "program",
    [
        "def f(x): return 0\ndef sorted(x): return 7\ndef abs(x): return 0",
        "def f(x): return 0\nclass math:\n    isclose = staticmethod(lambda *a: True)",
        "def f(x): return 0\ndef Counter(x): return 1\ndef isclose(*a): return True",
    ],
)
def test_a_program_does_not_replace_what_its_tests_use(sandbox, program):
    tests = ("assert sorted([f(1)]) == 7", "assert math.isclose(f(1), 5)", "assert Counter([f(1)]) == Counter([2])")
    assert passes(program, *tests, "assert abs(f(1) - 5) < 1e-3").share == 0


def test_a_helper_in_the_prelude_is_the_tests_own(sandbox):
    # HumanEval 32 and 38: the tests call a helper of the prompt, which an answer may define again.
    prelude = "def encode(s): return s[::-1]\n"
    cheat = "def encode(s): return s\ndef decode(s): return s"
    right = "def decode(s): return s[::-1]"
    put = {"prelude": prelude, "entry_point": "decode"}
    assert passes(cheat, "assert decode(encode('abc')) == 'abc'", **put).share == 0
    assert passes(right, "assert decode(encode('abc')) == 'abc'", **put).share == 1


def test_tests_that_cannot_be_split_are_unknown_with_words(sandbox):
    [(outcome, part)] = graded(code_tests, ["def f(g, x): return g(x)"], tests=["assert f(lambda x: x, 3) == 3"])
    assert (outcome, part) == ("unknown", None)
    result = passes("def f(g, x): return g(x)", "assert f(lambda x: x, 3) == 3")
    assert result.detail == "the test hands the program a function, which cannot cross"


def test_tests_that_do_not_run_are_unknown_with_words(sandbox):
    result = passes("def f(x): return 1", "assert f(1 == 1")
    assert not result.is_known
    assert "the tests themselves do not run: SyntaxError" in result.detail


def test_a_program_that_makes_the_tests_run_for_ever_is_wrong(sandbox):
    result = passes("def f(x):\n    while True: yield 1", "assert sum(f(1)) == 3")
    assert result.is_known
    assert result.share == 0


def test_an_entry_point_may_be_a_method(sandbox):
    program = "class Solution:\n    def solve(self, x): return x + {}"
    put = {"tests": "def check(candidate):\n    assert candidate(1) == 2", "entry_point": "Solution().solve"}
    assert graded(code_tests, [program.format(1), program.format(2)], **put) == [("scored", 1.0), ("scored", 0.0)]
    for entry in ("__import__('os')", "f; g", "f(1).g", "a.b.c"):
        with pytest.raises(RewardError, match=r"row 0: entry_point .* is no name"):
            asyncio.run(
                code_tests(["x"], ["assert 1"], lambda name, value: None, entry_point=[entry], sandbox=SETTINGS)
            )


def test_half_characters_are_no_program(sandbox):
    assert graded(code_stdio, ["print('\ud800')", "\udfff", "\ud800 = 1"], tests=ADD[:1]) == [("scored", 0.0)] * 3
    assert graded(code_tests, ["x = '\ud800'\ndef add(a, b): return a + b"], tests=MBPP) == [("scored", 0.0)]


def test_check_needs_an_entry_point(sandbox):
    with pytest.raises(RewardError, match="entry_point is missing"):
        asyncio.run(code_tests([CLOSE], [HUMAN_EVAL["tests"]], lambda name, value: None, sandbox=SETTINGS))


def test_the_same_program_gets_the_same_score_twice(sandbox):
    program = "import random\nprint(random.random(), list({'a', 'b', 'c', 'd'}), hash('x'))"
    first, second = (asyncio.run(sandbox.run(program)) for _ in range(2))
    assert first.end == "finished"
    assert first.stdout == second.stdout


def test_the_boundary_is_told_once_it_is_open(sandbox):
    [reward] = in_sandbox([as_reward(code_stdio)], SETTINGS)
    assert boundary_of([reward]) == sandbox.boundary
    assert boundary_of([as_reward(of_length)]) is None
    assert reward.deadline == 60.0  # 20 wall seconds of three


def of_length(completions):
    return [0.0 for _ in completions]


def test_marks_say_why(sandbox):
    marks = asyncio.run(
        code_stdio(["while True: pass", "print(3)"], [ADD[:1]] * 2, lambda name, value: None, sandbox=SETTINGS)
    )
    assert isinstance(marks[0], Wrong)
    assert marks[0].why.startswith("too much processor time: after 1.")
    assert marks[1] == 1.0
    assert Unknown("x") not in marks


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("print(1)", "print(1)"),
        ("", ""),
        ("```python\n```", ""),
        ("a\n```python\nx\n```\nb\n```\ny\n```\n", "y\n"),
        ("```py\nx\n", "x\n"),
        ("~~~\nx\n```\n~~~", "x\n```\n"),
    ],
)
def test_the_program_is_the_last_block(text, program):
    assert program_of(text) == program


def test_outputs_are_compared():
    assert same_output("1 2 \r\n3\n\n", "1 2\n3")
    assert not same_output("1  2", "1 2")
    assert same_output("1  2\n3", "1 2 3", "words")
    assert not same_output("1", "1 2", "words")
    assert same_output("0.3333 a", "0.33333 a", tolerance=1e-3)
    assert not same_output("0.34 a", "0.33333 a", tolerance=1e-3)
    assert not same_output("nan", "1", tolerance=1e-3)
    assert not same_output("", "1")


def test_packages_are_there_if_the_recipe_names_them(sandbox):
    with_numpy = open_sandbox(SandboxSettings(packages=("numpy",), cpu_seconds=2.0, memory_mb=2048))
    program = "import numpy as np\nimport numpy.fft\nprint(np.arange(3).sum() + int(np.linalg.det(np.eye(2))))"
    try:
        outcome = asyncio.run(with_numpy.run(program))
        assert (outcome.end, outcome.stdout) == ("finished", "4\n"), outcome
        assert asyncio.run(with_numpy.run("import pydantic")).end == "crashed"
        put = UnitTests(("assert f([1, 2]) == 3",))
        assert asyncio.run(with_numpy.test("import numpy as np\ndef f(x): return np.sum(x)", put)).share == 1
    finally:
        with_numpy.close()
    assert asyncio.run(sandbox.run("import numpy")).end == "crashed"
