"""Looks at every step for signs that training goes wrong, tells them, and says what is to be done.

watch = Watch(recipe.alarms, run.path / "alarms.jsonl", reporter.message)
match watch.after_step(history, groups):
    case None: ...
    case alarm: ...        # one of those that the recipe lets act
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from groupwise.config.alarms import AlarmsSection
from groupwise.runs.files import append_row, read_rows
from groupwise.runs.identity import now
from groupwise.runs.text import safe_text, well_formed
from groupwise.training.alarms import History, Said, detectors_of
from groupwise.training.signs import example_of
from groupwise.types import Group

Append: TypeAlias = Callable[[Path, Mapping[str, Any]], None]

_SHOWN = 2000
"""Characters of an example that are kept in alarms.jsonl; the whole is in the rollouts of the step."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """What was seen at which step."""

    name: str
    step: int
    said: Said

    def __str__(self) -> str:
        return f"ALARM {self.name}, step {self.step}: {self.said.text} {self.said.advice}"


class Watch:
    """The detectors of one run, and when each was told last. What earlier attempts of the run told is remembered."""

    def __init__(
        self, section: AlarmsSection, file: Path, tell: Callable[[str], None], append: Append = append_row
    ) -> None:
        self._section, self._file, self._tell, self._append = section, file, tell, append
        self._detectors = detectors_of(section.off, section.settings)
        detectors_of(section.act_on, {})  # a name that there is not
        self._told = {str(row.get("alarm")): int(row.get("step", 0)) for row in read_rows(file)}

    def after_step(
        self, steps: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]], groups: Sequence[Group] = ()
    ) -> list[Alarm]:
        """The alarms of the newest step, each told and written down; the newest row has the step's number."""
        if not steps:
            return []
        step, history = int(steps[-1]["step"]), History(steps, evaluations)
        found: list[Alarm] = []
        for name, (detect, limits) in self._detectors.items():
            since = step - self._told.get(name, -self._section.repeat_after)
            if since < self._section.repeat_after and since >= 0:
                continue
            if said := detect(history, **limits):
                found.append(Alarm(name, step, said))
                self._told[name] = step
                self._write(found[-1], groups)
                self._tell(safe_text(str(found[-1])))
        return found

    def acting(self, alarms: Sequence[Alarm]) -> Alarm | None:
        """The first that does more than speak."""
        acts = self._section.action != "tell"
        return next((alarm for alarm in alarms if acts and alarm.name in self._section.act_on), None)

    def note(self, step: int, text: str, evidence: Mapping[str, float]) -> None:
        """Say and write down, beside the alarms, that the run was rolled back to this step."""
        row = {"step": step, "time": now(), "alarm": "roll_back", "text": text, "advice": ""}
        self._append(self._file, {**row, "evidence": dict(evidence)})
        self._tell(text)

    def _write(self, alarm: Alarm, groups: Sequence[Group]) -> None:
        row: dict[str, Any] = {"step": alarm.step, "time": now(), "alarm": alarm.name, "text": alarm.said.text}
        row |= {"advice": alarm.said.advice, "evidence": dict(alarm.said.evidence)}
        shown = example_of(alarm.name, groups)
        if shown is not None:
            problem, why, rollout = shown
            text = well_formed(rollout.completion.text[:_SHOWN])
            row["example"] = {"problem": problem, "why": why, "reward": rollout.reward, "text": text}
        self._append(self._file, row)
