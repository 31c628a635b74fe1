"""Do a data set's gold answers pass our own verifier? All of GSM8K's 8,792 do, and this counts them.

python bench/gold_answers.py path/to/gsm8k        # a folder with train.jsonl and test.jsonl, or nothing: the hub
"""

import sys
import time

from groupwise.tasks import gsm8k
from groupwise.tasks.report import look_at


def main() -> int:
    task, start = gsm8k(path=sys.argv[1] if len(sys.argv) > 1 else "openai/gsm8k"), time.perf_counter()
    report = look_at(task)
    print(report)
    print(f"{report.judged / (time.perf_counter() - start):,.0f} answers a second on one core")
    return bool(report.wrong)


if __name__ == "__main__":
    sys.exit(main())
