"""How fast are answers of GSM8K graded, and are all gold answers right under our own verifier?

python bench/grading.py path/to/gsm8k        # a folder with train.jsonl and test.jsonl, or nothing: the hub
"""

import sys
import time

from groupwise.rewards import correctness, hash_answer
from groupwise.rewards.maths.verify import maths
from groupwise.tasks.reading import Source, read_split


def main() -> int:
    source = Source(sys.argv[1]) if len(sys.argv) > 1 else Source("openai/gsm8k", name="main")
    texts = [row["answer"] for split in ("train", "test") for row in read_split(source, split)]
    golds = [hash_answer(text) for text in texts]
    tagged = [
        f"<reasoning>\n{text}\n</reasoning>\n<answer>\n{gold}\n</answer>"
        for text, gold in zip(texts, golds, strict=True)
    ]
    right = sum(mark == 1.0 for mark in maths(texts, golds))
    print(f"{right:,} of {len(golds):,} gold answers are right by `maths`")
    spelled = [f"<answer>${gold}.00</answer>" for gold in golds]
    wrong = [f"{text}\nSo the answer is {index} more than \\boxed{{{index}}}." for index, text in enumerate(texts)]
    for name, function in (("maths", maths), ("correctness", correctness)):
        for kind, answers in (("right", tagged), ("right, spelled otherwise", spelled), ("wrong", wrong)):
            start = time.perf_counter()
            function(answers, golds)
            print(f"{name}, {kind}: {len(golds) / (time.perf_counter() - start):,.0f} answers a second")
    expressions = [rf"\boxed{{\frac{{{index}}}{{\sqrt{{2}}}}}}" for index in range(3, 203)]
    start = time.perf_counter()
    maths(expressions, [rf"\frac{{{index}\sqrt{{2}}}}{{2}}" for index in range(3, 203)])
    print(f"maths, all expressions: {len(expressions) / (time.perf_counter() - start):,.0f} answers a second")
    return right != len(golds)


if __name__ == "__main__":
    sys.exit(main())
