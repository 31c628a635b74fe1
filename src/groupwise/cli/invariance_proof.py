"""`groupwise doctor --invariance recipe.toml`: the gradient is the same however it is computed, on one's own model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from groupwise.cli.findings import Finding

if TYPE_CHECKING:
    from groupwise.learner.gradients import Subject


def invariant(name: str) -> Iterator[Finding]:
    """A line for each way to compute the gradient. `name`: a recipe, a run, a model's folder or its id.

    In float64, so a model needs about four times its size in memory, and twice that for each of the two processes.
    """
    from groupwise.learner.invariance import CLOSE, invariance

    for outcome in invariance(_subject(name)):
        text = f"{outcome.name}: differs by {outcome.difference:.1e} of the gradient's largest entry"
        values = {"difference": outcome.difference, "allowed": CLOSE}
        if outcome.ok:
            yield Finding("invariance", "ok", text, values=values)
        else:
            cure = f"a difference above {CLOSE:g} in float64 is no rounding: {_CURES.get(outcome.name, _REPORT)}"
            yield Finding("invariance", "error", text, cure, values)


_REPORT = "please report the model and the recipe. A function of your own that looks at its neighbours can be the cause"
_CURES = {
    "padded": 'set model.attention = "plain" until it is mended, and please report the architecture',
    "checkpointing": "set model.gradient_checkpointing = false: what is computed anew is not what was computed before",
}


def _subject(name: str) -> Subject:
    from groupwise.cli.subject import subject
    from groupwise.learner.gradients import Subject
    from groupwise.training.build import located_model

    loaded = subject(name).loaded
    recipe = loaded.recipe
    return Subject(
        model=located_model(loaded).model_copy(update={"dtype": "fp32", "gradient_checkpointing": False}),
        lora=recipe.lora,
        algorithm=recipe.algorithm,
        folder=loaded.folder,
        max_new_tokens=recipe.sampling.max_new_tokens,
        seed=recipe.seed,
    )
