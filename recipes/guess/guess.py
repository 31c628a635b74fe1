"""A dialogue: the model guesses a number from 1 to 7, and is told whether the secret is higher or lower.

Run this file to make what the recipes begin with: an untrained model and what a guess looks like.
"""

import json
import random
import sys
from pathlib import Path

from groupwise.models.small import write_small_model
from groupwise.tasks import Reply, Task, world_of
from groupwise.types import Problem

NUMBERS = "1234567"
TRIES = 3


class Secret:
    """Knows the number. Found within three tries is worth 1: by halving what is left one always gets there."""

    async def reset(self, problem):
        self.secret = problem.columns["secret"]

    async def step(self, said):
        guess = said.strip()
        if guess not in NUMBERS or not guess:
            return Reply(done=True, reward=0.0)
        if guess == self.secret:
            return Reply(done=True, reward=1.0)
        return Reply.of("higher" if guess < self.secret else "lower")


def guess(copies=8):
    """Each secret is asked for several times in a step; there are no others to hold out."""
    ask = [Problem(f"guess/{n}/{copy}", "1-7?\n", {"secret": n}) for copy in range(copies) for n in NUMBERS]
    found = lambda text, columns: text.split("\n")[-1].strip() == columns["secret"]  # noqa: E731
    return Task("guess", ask, ask[: len(NUMBERS)], is_correct=found, environment=world_of(Secret))


def main(folder):
    """Guesses as people make them: half of them mind what was said last, half are any number."""
    draw = random.Random(0)
    write_small_model(folder / "untrained", hidden=64, layers=2, context=64, seed=0)
    rows = []
    for _ in range(4000):
        prompt, left = "1-7?\n", NUMBERS
        for _ in range(draw.randrange(TRIES)):
            said, hint = draw.choice(NUMBERS[1:-1]), draw.choice(["higher", "lower"])
            prompt += f"{said}<eos>\n{hint}\n"
            left = [n for n in NUMBERS if (n > said if hint == "higher" else n < said)]
        rows.append({"prompt": prompt, "completion": draw.choice(left if draw.random() < 0.5 else NUMBERS)})
    (folder / "guesses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/guess-start")
    target.mkdir(parents=True, exist_ok=True)
    main(target)
