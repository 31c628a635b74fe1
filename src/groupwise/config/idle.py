"""Settings that change nothing because another one is not set: said, not ignored.

A recipe that was written out whole, as in a run folder, names every setting: one that has its default is never idle.
Nor is one of the file whose switch the command line turned off for once (`evaluation.pass_at=[]`).
"""

from __future__ import annotations

from groupwise.config.draft import COMMAND_LINE, Draft
from groupwise.config.names import Name, dotted
from groupwise.config.recipe import Recipe
from groupwise.config.sections import EvaluationSection, ReferenceSection


def note_idle(recipe: Recipe, draft: Draft) -> None:
    """Note each setting that was chosen and has no effect."""
    reference, evaluation = recipe.reference, recipe.evaluation
    if reference.every is None and reference.mix != ReferenceSection().mix:
        _note(draft, ("reference", "mix"), ("reference", "every"), "how far a moving reference goes, but it stays")
    if not evaluation.pass_at and evaluation.samples != EvaluationSection().samples:
        _note(draft, ("evaluation", "samples"), ("evaluation", "pass_at"), "how many to draw for pass@k, but none is")


def _note(draft: Draft, idle: Name, switch: Name, what: str) -> None:
    if draft.origin(switch).source == COMMAND_LINE != draft.origin(idle).source:
        return
    draft.note(idle, f"says {what} while {dotted(switch)} is not set. Set {dotted(switch)} or drop it")
