"""The sections of a recipe that say what is learnt from groups and how: algorithm, learner, optimizer."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from groupwise.config.section import Section


class AlgorithmSection(Section):
    """The objective, as entries of the tables in `groupwise.maths`: `groupwise algorithms` lists them. A preset fills
    what you leave out. In place of an entry you may name a function of your own, `file.py:name`."""

    preset: Literal[
        "grpo",
        "dr_grpo",
        "dapo",
        "bnpo",
        "lite_ppo",
        "gspo",
        "gspo_token",
        "luspo",
        "gmpo",
        "cispo",
        "scale_rl",
        "sapo",
        "vespo",
        "dppo",
        "clip_cov",
        "kl_cov",
        "high_entropy",
        "intellect_2",
        "rloo",
        "reinforce_pp",
        "reinforce_pp_baseline",
        "opo",
        "gpg",
        "maxrl",
        "gdpo",
        "pass_at_k",
        "gfpo",
        "topr",
        "dro",
    ] = "grpo"
    """Named set of entries (`groupwise.config.PRESETS`) for the settings below that you leave out."""
    advantage: str
    """How rewards become advantages."""
    ratio: str
    """Whether the policy is compared with the old one by token or by whole completion."""
    surrogate: str
    """The policy term per token."""
    weights: str
    """How the loss is averaged over tokens, completions and prompts."""
    divergence: str
    """Estimator of the KL to the reference."""
    beta: float = Field(ge=0)
    """Coefficient of that KL. 0 loads no reference at all."""
    clip_low: float = Field(ge=0, le=1)
    """The ratio may fall to 1 - clip_low."""
    clip_high: float = Field(ge=0, allow_inf_nan=True)
    """The ratio may rise to 1 + clip_high; inf: without end."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Where the KL stands: in the loss, token by token, or taken off a completion's reward before advantages."""
    kl_ratio: bool = False
    """Multiply the KL in the loss by policy / old policy, which makes its gradient unbiased (DeepSeek-V3.2)."""
    beta_control: str = "fixed"
    """What becomes of beta from update to update."""
    entropy: float = Field(default=0.0, ge=0)
    """Coefficient of an entropy bonus: the mean entropy over the update's tokens is taken off the loss."""
    entropy_control: str = "fixed"
    """What becomes of that coefficient from update to update."""
    anchor: Literal["policy", "sampler"] = "policy"
    """What the policy is compared with: its own logprobs when the update began, or those that the engine reported.
    With the embedded engine they are the same."""
    correction: str | None = None
    """Factor on each token for the difference between sampler and learner; unset: none."""
    filters: list[str] = Field(default_factory=list[str])
    """Which tokens train: those that pass all of these."""
    selection: str = "everything"
    """Which groups of a step train, and how many further problems are sampled for that."""
    length_penalty: str = "none"
    """What a completion's length takes off its reward before completions are compared."""
    mask_truncated: bool = False
    """Completions that the token limit cut off count in their group's mean and std, and train nothing."""
    settings: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Settings of the entries above beside `clip_low` and `clip_high`, such as `{delta = 4.0}`."""


class LearnerSection(Section):
    """From groups to updates."""

    passes: int = Field(default=1, ge=1, le=1000)
    """mu of the paper: passes over each batch of groups."""
    updates_per_batch: int = Field(default=1, ge=1)
    """Optimizer steps in each pass; the groups are divided among them."""
    token_budget: int | None = Field(default=None, ge=1)
    """Tokens in one micro-batch; beside a long prompt there is room for as many tokens of completions as it has, up to
    this number. Unset: 2,048, and on a CUDA device so many for each 16 GB of its memory, rounded. Changes memory and
    speed, never the gradient."""
    logprob_chunk: int = Field(default=1024, ge=1)
    """Tokens whose logits exist at the same time; fewer where the vocabulary is so large that they are over 256 MB. In
    fp32 on a CPU with a C compiler a large vocabulary goes in tiles of 4 MB instead, whatever is set here."""


Decay: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSection(Section):
    """AdamW and its schedule."""

    kind: Literal["adamw", "adamw_8bit"] = "adamw"
    """`adamw_8bit` keeps its state in 8 bits; needs bitsandbytes and a device it supports."""
    lr: float = Field(default=1e-6, gt=0)
    """Learning rate."""
    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.999), strict=False)
    """Decay of the two moments."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the second moment."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay; not applied to biases and norms."""
    max_grad_norm: float = Field(default=1.0, gt=0, allow_inf_nan=True)
    """Gradients longer than this are scaled down to it; inf: never."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What the learning rate does after the warm-up, on the way to 0 right after the last update."""
    warmup: float = Field(default=0.0, ge=0, lt=1)
    """Share of all updates in which the learning rate rises from 0."""
