"""TRL's side: one workload in a process of its own, in the virtualenv that TRL is in. See compare.py.

    .venv-trl/bin/python bench/trl_side.py W1 MODEL_FOLDER OUT.json --like OURS.json --micro-batch 8 --steps 4

`--like` is what our side has measured: TRL gets the same prompts in the same order. `--only generate` and `--only
learn` leave the other half of a step out, to find the fastest settings: completions are then not learnt from, or are
random tokens of the lengths that ours had.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from pathlib import Path

import torch
import transformers
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from process import Graded, Steps
from workloads import Workload, workload_of


def settings_of(workload: Workload, arguments, folder: str) -> dict:
    """GRPOConfig as groupwise is set, and TRL at its fastest: nothing is recomputed, nothing is saved."""
    cpu = arguments.device == "cpu"
    return {
        "output_dir": folder,
        "per_device_train_batch_size": arguments.micro_batch,
        "gradient_accumulation_steps": workload.completions // arguments.micro_batch,
        "num_generations": workload.group,
        "num_iterations": workload.passes,
        "max_completion_length": workload.cap,
        "max_steps": arguments.steps * workload.passes,
        "beta": workload.beta,
        "epsilon": 0.2,
        "temperature": 1.0,
        "loss_type": "grpo",
        "learning_rate": workload.learning_rate,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "shuffle_dataset": False,
        "gradient_checkpointing": False,
        "use_cpu": cpu,
        "bf16": not cpu,
        "model_init_kwargs": {"dtype": "float32" if cpu else "bfloat16"},
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": workload.passes,
        **(continuous_batching(workload) if arguments.generate == "continuous" else {}),
    }


def continuous_batching(workload: Workload) -> dict:
    """Pages for all completions at once. Without flash attention a pass attends as one dense square of all its tokens,
    so that passes of few tokens are the fastest."""
    page = 32
    pages = -(-(workload.prompt[1] + workload.cap) // page) + 1
    config = {
        "page_size": page,
        "num_blocks": pages * workload.completions,
        "max_batch_tokens": 64,
        "max_requests_per_batch": 64,
    }
    return {"use_transformers_continuous_batching": True, "transformers_continuous_batching_config": config}


def trainer_of(workload: Workload, arguments, rows: list[dict], graded: Graded, folder: str) -> GRPOTrainer:
    """TRL's trainer on the same model, prompts and reward."""
    adapter = None
    if workload.lora is not None:
        from peft import LoraConfig

        adapter = LoraConfig(r=workload.lora, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    prompts = workload.prompts()
    drawn = [number for row in rows for number in row["drawn"]]
    order = [*drawn, *(set(range(len(prompts))) - set(drawn))]
    return GRPOTrainer(
        model=arguments.model,
        reward_funcs=[graded],
        args=GRPOConfig(**settings_of(workload, arguments, folder)),
        train_dataset=Dataset.from_list([{"prompt": prompts[number]} for number in order]),
        peft_config=adapter,
    )


class Watch(transformers.TrainerCallback):
    """Takes the time when a step ends. mu passes over one batch are mu steps of TRL and one of ours."""

    def __init__(self, workload: Workload, graded: Graded) -> None:
        self.steps = Steps()
        self.generating = 0.0
        self._passes = workload.passes
        self._graded = graded

    def on_train_begin(self, args, state, control, **_):
        self.steps.begin()

    def on_step_end(self, args, state, control, **_):
        if state.global_step % self._passes == 0:
            self.steps.end(sample=self.generating, **self._graded.facts)
            self.generating = 0.0

    def timed(self, generate):
        def generate_and_count(*args, **kwargs):
            start = time.perf_counter()
            try:
                return generate(*args, **kwargs)
            finally:
                self.generating += time.perf_counter() - start

        return generate_and_count


def without_generation(trainer: GRPOTrainer, rows: list[dict], vocabulary: int, cap: int) -> None:
    """In place of sampling: random tokens of the same lengths."""
    end, steps, rng = trainer.eos_token_ids[0], iter(rows), random.Random(0)

    def completions(prompt_ids, *_, **__):
        lengths = next(steps)["lengths"]
        ids = [[rng.randrange(end + 1, vocabulary) for _ in range(length)] for length in lengths]
        return [[*tokens[:-1], end] if len(tokens) < cap else tokens for tokens in ids], None

    trainer._generate_single_turn = completions


def without_learning(trainer: GRPOTrainer) -> None:
    """Sample and grade, and leave the weights alone."""

    def training_step(model, inputs, num_items_in_batch=None):
        trainer._prepare_inputs(inputs)
        trainer._step += 1
        return torch.zeros(())

    trainer.training_step = training_step


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", help="W0 ... W5, or the fields of another as JSON")
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--like", type=Path, help="the result of our side")
    parser.add_argument("--micro-batch", type=int, required=True)
    parser.add_argument("--generate", choices=("hf", "continuous"), default="hf")
    parser.add_argument("--only", choices=("generate", "learn"))
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit-gb", type=float, help="fail rather than take more memory than this")
    arguments = parser.parse_args()
    if arguments.limit_gb:
        limit = int(arguments.limit_gb * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    transformers.logging.set_verbosity_error()
    workload = workload_of(arguments.workload)
    rows = json.loads(arguments.like.read_text())["steps"] if arguments.like else []
    graded = Graded(workload.group)
    watch = Watch(workload, graded)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(workload, arguments, rows, graded, folder)
        trainer._generate = watch.timed(trainer._generate)
        if arguments.only == "learn":
            without_generation(trainer, rows, workload.shape.vocabulary, workload.cap)
        if arguments.only == "generate":
            without_learning(trainer)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.add_callback(watch)
        trainer.train()
    watch.steps.write(arguments.out, micro_batch=arguments.micro_batch, generate=arguments.generate)


if __name__ == "__main__":
    main()
