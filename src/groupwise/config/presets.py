"""Presets: an algorithm's name stands for entries of the tables in `groupwise.maths`.

A preset fills the keys of `[algorithm]` that the user left out and touches no other. To add one: an entry here, and
its name in `AlgorithmSection.preset`. Whether a table has an entry of that name is checked when the algorithm is made
from the recipe: config knows no maths.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from groupwise.config.draft import COMMAND_LINE, Draft, Origin

_PRESET = ("algorithm", "preset")

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # GRPO, DeepSeekMath (arXiv 2402.03300). beta is 0 as in most runs since: set it to have the KL of the paper.
        "grpo": {
            "advantage": "group_normalized",
            "surrogate": "clipped_ratio",
            "weights": "sequence_mean",
            "divergence": "k3",
            "beta": 0.0,
            "clip_low": 0.2,
            "clip_high": 0.2,
        },
        # Dr. GRPO (arXiv 2503.20783): no division by the std, none by the length.
        "dr_grpo": {
            "advantage": "group_centred",
            "surrogate": "clipped_ratio",
            "weights": "fixed_length",
            "divergence": "k3",
            "beta": 0.0,
            "clip_low": 0.2,
            "clip_high": 0.2,
        },
        # DAPO (arXiv 2503.14476): every token counts the same, and the ratio may rise further than it may fall.
        "dapo": {
            "advantage": "group_normalized",
            "surrogate": "clipped_ratio",
            "weights": "token_mean",
            "divergence": "k3",
            "beta": 0.0,
            "clip_low": 0.2,
            "clip_high": 0.28,
        },
    }
)


def fill_preset(draft: Draft) -> None:
    """Fill what `[algorithm]` leaves out. An unknown preset is filled as grpo, so that only its name is reported."""
    section = draft.tree.setdefault("algorithm", {})
    if not isinstance(section, dict):
        return
    algorithm = cast("dict[str, Any]", section)
    name = algorithm.get("preset", "grpo")
    entries = PRESETS.get(name, PRESETS["grpo"]) if isinstance(name, str) else PRESETS["grpo"]
    missing = [key for key in entries if key not in algorithm]
    differs = any(algorithm.get(key) != entries[key] for key in entries)
    if not missing and differs and draft.origin(_PRESET).source == COMMAND_LINE:
        draft.note(
            _PRESET,
            "changes nothing, for every setting that a preset fills is given already. Take those of [algorithm] out "
            "of the recipe, or override them one by one",
        )
    for key in missing:
        algorithm[key] = entries[key]
        draft.given["algorithm", key] = Origin(f"preset {name}")
