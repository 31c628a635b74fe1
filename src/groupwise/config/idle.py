"""Settings that change nothing because another one is not set: said, not ignored.

A recipe that was written out whole, as in a run folder, names every setting: one that has its default is never idle.
Nor is one of the file whose switch the command line turned off for once (`evaluation.pass_at=[]`).
"""

from __future__ import annotations

from groupwise.config.alarms import AlarmsSection
from groupwise.config.draft import COMMAND_LINE, Draft
from groupwise.config.names import Name, dotted
from groupwise.config.presets import PRESETS
from groupwise.config.problems import ProblemsSection
from groupwise.config.recipe import Recipe
from groupwise.config.sections import AlgorithmSection, EvaluationSection, ReferenceSection


def note_idle(recipe: Recipe, draft: Draft) -> None:
    """Note each setting that was chosen and has no effect."""
    reference, evaluation = recipe.reference, recipe.evaluation
    if reference.every is None and reference.mix != ReferenceSection().mix:
        _note(draft, ("reference", "mix"), ("reference", "every"), "how far a moving reference goes, but it stays")
    if not evaluation.pass_at and evaluation.samples != EvaluationSection().samples:
        _note(draft, ("evaluation", "samples"), ("evaluation", "pass_at"), "how many to draw for pass@k, but none is")
    if recipe.problems.order == "epochs":
        for key, value in ProblemsSection().model_dump(exclude={"order"}).items():
            if recipe.problems.model_dump()[key] != value:
                _note(
                    draft, ("problems", key), ("problems", "order"), "how to draw by difficulty, but none is looked at"
                )
    _note_alarms_and_loops(recipe, draft)
    algorithm, preset = recipe.algorithm, PRESETS[recipe.algorithm.preset]
    for key in ("divergence", "kl_in", "kl_ratio", "beta_control"):
        usual = preset.get(key, AlgorithmSection.model_fields[key].default)
        if algorithm.beta == 0 and algorithm.model_dump()[key] != usual:
            _note(draft, ("algorithm", key), ("algorithm", "beta"), "what becomes of the KL term, but there is none")


def _note_alarms_and_loops(recipe: Recipe, draft: Draft) -> None:
    if recipe.loops.tokens is None and recipe.loops.reward != 0:
        _note(draft, ("loops", "reward"), ("loops", "tokens"), "what a loop gets, but none is cut")
    if recipe.alarms.action != "roll_back":
        for key in ("roll_back_steps", "roll_back_lr", "roll_backs"):
            if recipe.alarms.model_dump()[key] != AlarmsSection.model_fields[key].default:
                action = recipe.alarms.action
                text = f'says how to roll back, and alarms.action is "{action}". Set that to "roll_back" or drop this'
                draft.note(("alarms", key), text)


def _note(draft: Draft, idle: Name, switch: Name, what: str) -> None:
    if draft.origin(switch).source == COMMAND_LINE != draft.origin(idle).source:
        return
    draft.note(idle, f"says {what} while {dotted(switch)} is not set. Set {dotted(switch)} or drop it")
