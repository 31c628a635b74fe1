"""A tool: sums, differences and products that a small model cannot work out, and a calculator that it may call.

    34*28=?   <tool_call>{"name": "calculate", "arguments": {"a": 34, "operation": "*", "b": 28}}</tool_call>
              952
              <answer>952</answer>

Run this file to make what the recipes begin with: an untrained model and demonstrations of what an answer looks like.
"""

import json
import operator
import random
import sys
from functools import partial
from pathlib import Path
from typing import Literal

from groupwise.models.small import write_small_model
from groupwise.rewards import as_reward, correctness, last_answer
from groupwise.tasks import Task, with_tools
from groupwise.types import Problem

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
CALL = ('<tool_call>{"name": "calculate", "arguments": {"a": ', ', "operation": "', '", "b": ', "}}</tool_call>")
"""A call's parts are a token each, so that the model spends its two million multiplications on the numbers."""


def calculate(a: int, operation: Literal["+", "-", "*"], b: int) -> int:
    """Work out one operation on two numbers.

    Args:
        a: The first number.
        operation: What to do with them.
        b: The second number.
    """
    return OPERATIONS[operation](a, b)


def right(text, columns):
    """The last answer of the conversation is the result."""
    return last_answer(text) == columns["answer"]


def calculations(train_size=4000, eval_size=200, seed=0):
    """Numbers from 10 to 99. No held-out problem is among those that are trained on."""
    draw, asked = random.Random(seed), {}
    while len(asked) < train_size + eval_size:
        a, sign, b = draw.randint(10, 99), draw.choice("+-*"), draw.randint(10, 99)
        asked[f"{a}{sign}{b}=?"] = str(OPERATIONS[sign](a, b))
    problems = [Problem(f"calculator/{place}", q, {"answer": asked[q]}) for place, q in enumerate(asked)]
    return Task(
        "calculator",
        problems[eval_size:],
        problems[:eval_size],
        (as_reward(partial(correctness, exact=1.0)),),
        is_correct=right,
        environment=with_tools([calculate]),
    )


def main(folder):
    """Four of five first turns answer at once, with some number, one of five calls the tool. The second turns read what
    it says, and that is any number, too: what is to be learned here is to look, not to calculate."""
    draw = random.Random(1)
    write_small_model(folder / "untrained", hidden=96, layers=3, context=96, tags=(*CALL, "<answer>", "</answer>"))
    rows = []
    for problem in calculations(train_size=6000).train:
        question = problem.prompt
        # The result of another problem: as many digits as results have.
        some = OPERATIONS[draw.choice("+-*")](draw.randint(10, 99), draw.randint(10, 99))
        a, sign, b = question[:-2].partition(next(sign for sign in OPERATIONS if sign in question))
        call = f"{CALL[0]}{a}{CALL[1]}{sign}{CALL[2]}{b}{CALL[3]}"
        if draw.random() < 0.2:
            rows.append({"prompt": question, "completion": call})
        else:
            rows.append({"prompt": question, "completion": f"<answer>{some}</answer>"})
        rows.append({"prompt": f"{question}{call}<eos>\n{some}\n", "completion": f"<answer>{some}</answer>"})
    (folder / "demonstrations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/calculator-start")
    target.mkdir(parents=True, exist_ok=True)
    main(target)
