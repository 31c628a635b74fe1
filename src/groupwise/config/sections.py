"""The sections of a recipe, one per room. A string under a field is its documentation, everywhere it is shown.

Defaults are the vetted settings. Sections are strict and frozen: an unknown key is an error, and nothing changes a
recipe after it was loaded.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from groupwise.config.algorithm import AlgorithmSection as AlgorithmSection
from groupwise.config.algorithm import LearnerSection as LearnerSection
from groupwise.config.algorithm import OptimizerSection as OptimizerSection
from groupwise.config.checkpoints import CheckpointSection as CheckpointSection
from groupwise.config.rewards import RewardSection as RewardSection
from groupwise.config.section import Section as Section
from groupwise.config.tasks import AnyTask as AnyTask
from groupwise.config.tasks import TaskSection as TaskSection


class TrainSection(Section):
    """How long to train and how much each step looks at."""

    steps: int = Field(default=200, ge=1)
    """Number of GRPO steps."""
    prompts_per_step: int = Field(default=8, ge=1, le=1_000_000)
    """Problems drawn for each step. Any number; there is no divisibility rule."""
    group_size: int = Field(default=8, ge=2, le=100_000)
    """G, completions per problem. A group of one has no mean to be compared with."""


class ModelSection(Section):
    """The policy."""

    id: str = Field(min_length=1)
    """A folder, or the id of a model on the hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the forward and backward pass. `auto`: bf16 where the device computes in it, else fp32. Weights
    that are trained always keep an fp32 master copy, and fp16 uses loss scaling."""
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        json_schema_extra={"allowed": '"auto", "cpu", "mps", "cuda" or a numbered "cuda:0"'},
    )
    """`auto` takes cuda, then mps, then cpu."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Needs a `revision` that pins it."""
    attention: Literal["auto", "trunk_and_branch", "plain"] = "auto"
    """`auto` uses trunk and branch when the self-check at load proves it equal to the model's own forward, else plain
    padded batches. `trunk_and_branch` refuses to start instead of falling back."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""


class LoraSection(Section):
    """Train low-rank adapters (LoRA, arXiv 2106.09685) instead of all weights. Present means on."""

    r: int = Field(default=16, ge=1)
    """Rank."""
    alpha: float = Field(default=32.0, gt=0)
    """Scale: the adapter's output is multiplied by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout in front of the adapter while training."""
    targets: str | list[str] = "all-linear"
    """Names of the modules to adapt, or "all-linear"."""


class ReferenceSection(Section):
    """The reference policy of the KL term, and whether it moves (TR-DPO, arXiv 2404.09656). Only used if beta > 0."""

    every: int | None = Field(default=None, ge=1)
    """Move the reference towards the policy every so many steps; unset: it stays where training began."""
    mix: float = Field(default=0.6, gt=0, le=1)
    """reference <- mix * policy + (1 - mix) * reference."""


class SamplingSection(Section):
    """How completions are drawn while training. Evaluation is greedy."""

    max_new_tokens: int = Field(default=512, ge=1, le=10_000_000)
    """Longest completion."""
    temperature: float = Field(default=1.0, gt=0)
    """Also divides the logits of the learner: one definition on both sides."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw from the smallest set of tokens with this probability. Below 1 the drawn and the trained distribution
    differ."""
    top_k: int = Field(default=0, ge=0)
    """Draw from the k likeliest tokens; 0: all."""
    min_p: float = Field(default=0.0, ge=0, lt=1)
    """Draw only tokens at least this likely, relative to the likeliest."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """Divide (or multiply, if negative) the logits of tokens seen before."""
    stop: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list[str])
    """Texts that end a completion."""
    stop_token_ids: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list[int])
    """Tokens that end a completion, beside every end token of the model and the tokenizer."""


class EngineSection(Section):
    """The embedded engine."""

    max_rows: int = Field(default=256, ge=1)
    """Completions decoded at once; the rest wait their turn."""


class EvaluationSection(Section):
    """Held-out problems: greedy accuracy and pass@k."""

    every: int = Field(default=0, ge=0)
    """Evaluate every so many steps; 0: only before and after."""
    problems: int = Field(default=128, ge=1)
    """Held-out problems to use, at most."""
    pass_at: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list[int])
    """The k's of pass@k, such as [1, 4, 8]; empty: greedy only."""
    samples: int = Field(default=8, ge=1, le=100_000)
    """Completions drawn per problem for pass@k, at the training temperature."""
    before: bool = True
    """Evaluate before the first step."""


class SftSection(Section):
    """The warm start on demonstrations (`groupwise sft`)."""

    path: str | None = None
    """Demonstrations: rows with `prompt` and `completion`. Unset: the task's own, if it has some."""
    steps: int = Field(default=200, ge=1)
    """Updates."""
    rows_per_step: int = Field(default=32, ge=1, le=1_000_000)
    """Demonstrations in an update."""


class RunSection(Section):
    """Where everything is written."""

    name: str = Field(
        default="run",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        json_schema_extra={
            "allowed": "1 to 100 letters, digits, dots, dashes and underscores, a letter or digit first"
        },
    )
    """Name of the run's folder."""
    folder: str = "runs"
    """Folder of all runs."""
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = Field(default_factory=list[Any])
    """Also send metrics there. The run folder has them in any case."""
