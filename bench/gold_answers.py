"""Do a data set's gold answers pass our own verifier? All of GSM8K's 8,792 do, and this counts them.

python bench/gold_answers.py path/to/gsm8k        # a folder with train.jsonl and test.jsonl, or nothing: the hub
"""

import sys
import time

from groupwise.tasks import gsm8k


def main() -> int:
    task = gsm8k(path=sys.argv[1] if len(sys.argv) > 1 else "openai/gsm8k")
    start, wrong = time.perf_counter(), []
    for name, problems in (("train", task.train), ("test", task.held_out)):
        failed = [
            problem.id for problem in problems if not task.is_correct(task.demonstrations(problem), problem.columns)
        ]
        print(f"{name}: {len(problems) - len(failed):,} of {len(problems):,} gold answers are right")
        wrong += failed
    rows = len(task.train) + len(task.held_out)
    print(f"{rows / (time.perf_counter() - start):,.0f} answers a second on one core", *wrong[:20])
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
