"""What a built-in reward may be set to. Settings are keyword-only parameters with a default, and checked at load.

A built-in's data come as its other parameters. So a column that happens to be called like a setting (`target`, ...)
never takes its place: `as_reward` fills in all settings beforehand.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeAlias, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from groupwise.errors import RewardError

Score: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
"""Any finite number."""

TagNames: TypeAlias = Annotated[list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$")]], Field(min_length=1)]
"""Names of tags, in the order in which they stand: `["reasoning", "answer"]`."""


def defaults(built_in: Callable[..., Any]) -> dict[str, Any]:
    """A built-in's settings and their defaults."""
    parameters = inspect.signature(built_in).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def checked(name: str, built_in: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a built-in, the given ones checked against their types, or a RewardError."""
    known = defaults(built_in)
    hints = get_type_hints(built_in, include_extras=True)
    for setting, value in settings.items():
        if setting not in known:
            raise RewardError(
                f"reward {name!r} has no setting {setting!r}{did_you_mean(setting, known)}. "
                f"It has: {', '.join(known) or 'none'}"
            )
        try:
            TypeAdapter(hints[setting]).validate_python(value, strict=True)
        except ValidationError as error:
            why = "; ".join(problem["msg"] for problem in error.errors())
            raise RewardError(
                f"reward {name!r}: setting {setting} = {value!r}: {why} (default: {known[setting]!r})"
            ) from error
    return {**known, **settings}


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """` (did you mean 'target'?)`, or nothing when no known name is close."""
    close = difflib.get_close_matches(wrong, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
