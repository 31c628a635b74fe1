"""The sections of a recipe that say what happens when a number, the memory or a wait goes wrong."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from groupwise.config.section import Section


class GuardsSection(Section):
    """What stands between a bad step and the policy."""

    non_finite: Literal["stop", "skip"] = "stop"
    """A loss, gradient, logprob, reward or advantage that is not finite never reaches the weights. `stop` ends the run
    there, `skip` goes on without that update. The batch is kept in bad_step/ either way."""
    skips_in_a_row: int = Field(default=3, ge=1)
    """So many skipped steps one after another end the run all the same."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Memory that this process may hold on a CPU, in 2^30 bytes; what is asked beyond is refused, and the micro-batch
    halved. Linux only. Unset: what the machine gives."""
    preflight: bool = True
    """Before the first step, run the worst case of the recipe once: longest prompts, full completions, forward,
    backward, save and load."""


class DeadlinesSection(Section):
    """The longest that each thing may take, in seconds. Whoever misses one is named, with the stacks of all threads in
    the log of the run; the run ends with an error, the model as it was."""

    load: float = Field(default=7200.0, gt=0)
    """What comes before the first step: the model and the data (downloads too), the preflight, a checkpoint to go on
    from."""
    sample: float = Field(default=7200.0, gt=0)
    """The engine, for all completions of a step or an evaluation."""
    grade: float = Field(default=1800.0, gt=0)
    """The reward functions, for all completions of a step."""
    learn: float = Field(default=7200.0, gt=0)
    """The learner, for all updates of a step."""
    sync: float = Field(default=600.0, gt=0)
    """The engine, for taking the new weights."""
    save: float = Field(default=7200.0, gt=0)
    """The disk, for a checkpoint that is not written beside the training, or not fast enough."""
    silence: float = Field(default=60.0, gt=0)
    """After so long without a word, say what is waited for."""
