"""groupwise's side: one workload in a process of its own, by the way that a user takes. See compare.py.

python bench/our_side.py W1 MODEL_FOLDER OUT.json --steps 4
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

from groupwise import Trainer
from groupwise.training.reporter import QuietReporter
from process import Graded, Steps
from workloads import Workload, workload_of

PHASES = ("sample", "grade", "learn", "sync")


class Watch(QuietReporter):
    """Takes the time when a step ends: everything is in it, also what is written to the run folder."""

    def __init__(self, graded: Graded) -> None:
        self.steps = Steps()
        self._graded = graded

    def started(self, total_steps: int, description: str, done: int = 0) -> None:
        """The first step begins."""
        self.steps.begin()

    def step(self, metrics: Mapping[str, float]) -> None:
        """A step has ended."""
        seconds = {phase: metrics[f"seconds/{phase}"] for phase in PHASES}
        self.steps.end(**seconds, **self._graded.facts, gap=metrics["sampler_gap"], trained=metrics["trained_tokens"])

    def message(self, text: str) -> None:
        """What the trainer wants the user to read, the user of a bench too."""
        print(f"    {text}", flush=True)


def settings_of(workload: Workload, steps: int, folder: str, dtype: str, device: str) -> dict:
    """The recipe. What is not named is the default, as a user has it."""
    adapter = {} if workload.lora is None else {"lora.r": workload.lora, "lora.alpha": 32.0}
    return {
        "train.steps": steps,
        "train.prompts_per_step": workload.problems,
        "train.group_size": workload.group,
        "model.dtype": dtype,
        "model.device": device,
        "sampling.max_new_tokens": workload.cap,
        "algorithm.beta": workload.beta,
        "learner.passes": workload.passes,
        "optimizer.lr": workload.learning_rate,
        "run.folder": folder,
        "checkpoints.every": 0,  # nothing is saved on the way on TRL's side either
        **adapter,
    }


def trainer_of(
    workload: Workload, model, folder: str, *, steps: int, dtype: str = "fp32", device: str = "cpu", tokenizer=None
) -> tuple[Trainer, Watch]:
    """The trainer of a workload, and who watches it. `model` is a folder, or a model, then with its tokenizer."""
    graded = Graded(workload.group)
    watch = Watch(graded)
    trainer = Trainer(
        model,
        task=[{"prompt": text} for text in workload.prompts()],
        rewards=graded,
        settings=settings_of(workload, steps, folder, dtype, device),
        tokenizer=tokenizer,
        reporter=watch,
    )
    return trainer, watch


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", help="W0 ... W5, or the fields of another as JSON")
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="    %(message)s")
    with tempfile.TemporaryDirectory() as folder:
        trainer, watch = trainer_of(
            workload_of(arguments.workload),
            arguments.model,
            folder,
            steps=arguments.steps,
            dtype=arguments.dtype,
            device=arguments.device,
        )
        trainer.train()
        policy = trainer.policy
    watch.steps.write(arguments.out, attention=policy.attention, dtype=arguments.dtype)


if __name__ == "__main__":
    main()
