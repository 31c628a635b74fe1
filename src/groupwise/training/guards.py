"""What becomes of a step whose numbers are not finite: kept whole, then the run stops, or goes on without it.

runs/demo/bad_step/000007/
  error.json             what, where, and the message
  rollouts.parquet       the batch, with its rewards and advantages
  weights.safetensors    the trained weights as they were: `groupwise replay runs/demo --bad-step 7` does it again
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from groupwise.config.guards import GuardsSection
from groupwise.learner.finite import NonFiniteError
from groupwise.models.policy import Policy
from groupwise.runs import disk
from groupwise.runs.files import replacing, to_json, write_text
from groupwise.runs.folder import RunFolder
from groupwise.runs.identity import now
from groupwise.runs.redaction import redact_text
from groupwise.runs.rollouts import write_rollouts
from groupwise.runs.text import safe_text
from groupwise.training.reporter import Reporter
from groupwise.types import Group

FOLDER = "bad_step"


class StepGuard:
    """Decides what becomes of bad steps, and keeps them."""

    def __init__(self, section: GuardsSection, policy: Policy, run: RunFolder, reporter: Reporter) -> None:
        self._section, self._policy, self._run, self._reporter = section, policy, run, reporter
        self._in_a_row = 0

    def passed(self) -> None:
        """A step was all right."""
        self._in_a_row = 0

    def refused(self, step: int, error: NonFiniteError) -> list[Group]:
        """Keep the step; raise, unless the recipe skips it; returns its groups."""
        kept = self._kept(step, error)
        self._in_a_row += 1
        if self._section.non_finite == "stop":
            raise NonFiniteError(error.blame, groups=error.groups).with_note(f"{kept}.")
        if self._in_a_row >= self._section.skips_in_a_row:
            raise NonFiniteError(error.blame, groups=error.groups).with_note(
                f"{kept}. It was the last of {self._in_a_row} such steps in a row (guards.skips_in_a_row)."
            )
        self._reporter.message(f"step {step} is skipped: {safe_text(str(error))}. {kept}")
        return list(error.groups)

    def state(self) -> dict[str, int]:
        """How many bad steps there were in a row."""
        return {"in_a_row": self._in_a_row}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on there."""
        self._in_a_row = state["in_a_row"]

    def _kept(self, step: int, error: NonFiniteError) -> str:
        """Keep it, and say where; a disk that will not take it must not hide what was wrong."""
        folder = self._run.path / FOLDER / f"{step:06d}"
        try:
            self._write(folder, step, error)
        except (OSError, SafetensorError) as failure:
            return f"The batch could not be kept: {failure}"
        return f"The batch is in {folder}; `groupwise replay {self._run.path} --bad-step {step}` does it again"

    def _write(self, folder: Path, step: int, error: NonFiniteError) -> None:
        disk.make_folder(folder, parents=True)
        write_rollouts(folder / "rollouts.parquet", step, error.groups)
        with replacing(folder / "weights.safetensors") as temporary:
            # Contiguous copies: what a model ties or slices, safetensors refuses.
            tensors = {name: p.detach().cpu().clone().contiguous() for name, p in self._policy.trainable().items()}
            save_file(tensors, temporary)
        blame, groups = error.blame, error.groups
        facts = {
            "step": step,
            "time": now(),
            "what": blame.what,
            "value": str(blame.value),
            "problem": groups[blame.group].problem.id if blame.group is not None and groups else None,
            "group": blame.group,
            "completion": blame.branch,
            "token": blame.token,
            "message": redact_text(str(error)),
        }
        write_text(folder / "error.json", to_json(facts, indent=2) + "\n")
        self._prune()

    def _prune(self) -> None:
        """Of the steps before, keep what they say, and the weights of as many as may follow each other."""
        folders = sorted((self._run.path / FOLDER).iterdir())
        for folder in folders[: -self._section.skips_in_a_row]:
            disk.remove(folder / "weights.safetensors")


def bad_steps(run: RunFolder) -> Sequence[int]:
    """The steps that were kept, oldest first."""
    return sorted(int(path.name) for path in (run.path / FOLDER).glob("*") if path.name.isdigit())
