"""Tables of variants, and how a name in a recipe becomes a function.

A variant is one function and one table row. Its signature says everything: positional parameters are the data that it
looks at, by name, out of what its table offers; keyword-only parameters are its settings.

    def clipped_ratio(log_ratio_T, advantages_T, *, clip_low: Share, clip_high: NotNegative): ...

Whoever calls it hands over all the data there are, and the entry takes what it names. So a new variant that looks at
something else, or has a setting that no other has, changes nothing but itself.
"""

from __future__ import annotations

import difflib
import inspect
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    Generic,
    NamedTuple,
    TypeAlias,
    TypeGuard,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from groupwise.errors import RecipeError

R = TypeVar("R")


class Bounds(NamedTuple):
    """What a setting may be, beside its type. `not_below` and `below` name another setting of the recipe, or `1 +` one.
    Of a pair both numbers are meant.

    Example: `Annotated[float, Bounds(above=0, not_below="1 + clip_high")]`
    """

    above: float = -math.inf
    at_least: float = -math.inf
    at_most: float = math.inf
    not_below: str = ""
    below: str = ""
    rising: bool = False
    """Of a pair: the first number may not be above the second."""

    def __str__(self) -> str:
        """Example: `above 0, at most 1`; empty without bounds."""
        named = (("above", self.above), ("at least", self.at_least), ("at most", self.at_most))
        numbers = [f"{words} {bound:g}" for words, bound in named if math.isfinite(bound)]
        others = [f"not below {self.not_below}"] * bool(self.not_below) + [f"below {self.below}"] * bool(self.below)
        return ", ".join([*numbers, *others, *["rising"] * self.rising])

    def hold(self, value: float) -> bool:
        """Whether a number is within them, other settings left aside."""
        return value > self.above and self.at_least <= value <= self.at_most


Positive: TypeAlias = Annotated[float, Bounds(above=0)]
NotNegative: TypeAlias = Annotated[float, Bounds(at_least=0)]
Share: TypeAlias = Annotated[float, Bounds(at_least=0, at_most=1)]
Fraction: TypeAlias = Annotated[float, Bounds(above=0, at_most=1)]
Multiple: TypeAlias = Annotated[float, Bounds(at_least=1, at_most=100)]
UpTo: TypeAlias = Annotated[float, Bounds(at_least=1)]
"""The largest ratio that passes; that of a token that is exactly on policy, 1, has to."""
Count: TypeAlias = Annotated[int, Bounds(at_least=1)]
Pair: TypeAlias = tuple[float, float]
"""Two finite numbers; `[2.0, 3.0]` in a recipe."""
NotNegatives: TypeAlias = Annotated[Pair, Bounds(at_least=0)]
Range: TypeAlias = Annotated[Pair, Bounds(rising=True)]


class Table(Mapping[str, Callable[..., R]], Generic[R]):
    """Variants of one kind by name: a read-only mapping that knows what it lists and which data there are.

    Example: `Table("weights", {"token_mean": token_mean}, offers=("lengths_R", "group_R"))`
    """

    def __init__(self, kind: str, entries: Mapping[str, Callable[..., R]], offers: Sequence[str] = ()) -> None:
        self.kind = kind
        """What an entry is called in a recipe and in messages: `advantage`, `surrogate`, `weights`, `divergence`."""
        self.offers = tuple(offers)
        """Names of the data that an entry may ask for; empty: any."""
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Callable[..., R]:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


@dataclass(frozen=True, slots=True)
class Bound(Generic[R]):
    """An entry with its settings filled in. It is called with all data by name and takes what it names.

    Example: `bound(lengths_R=lengths_R, group_R=group_R)` calls `token_mean(lengths_R=lengths_R)`.
    """

    kind: str
    name: str
    function: Callable[..., R]
    data: tuple[str, ...]
    settings: Mapping[str, Any]

    def __call__(self, **offered: Any) -> R:
        """Call the entry."""
        return self.function(**{name: offered[name] for name in self.data}, **self.settings)

    def takes(self, name: str) -> bool:
        """Whether the entry looks at this."""
        return name in self.data


def bind(table: Table[R], name: str, settings: Mapping[str, Any]) -> Bound[R]:
    """The entry of that name, with the settings that its signature asks for.

    `settings` may hold more than this entry wants: all variants draw from the same recipe. A setting with a default
    may be absent.

    Example: `bind(SURROGATES, "clipped_ratio", {"clip_low": 0.2, "clip_high": 0.28, "max_new_tokens": 512})` is
    `clipped_ratio` with both clips set.
    """
    if name not in table:
        raise RecipeError(_unknown(table.kind, name, list(table)))
    return bind_function(table, name, table[name], settings)


def bind_function(table: Table[R], name: str, function: Callable[..., R], settings: Mapping[str, Any]) -> Bound[R]:
    """The same for a function that is in no table, but could be in this one."""
    data = data_of(function)
    if strange := [each for each in data if table.offers and each not in table.offers]:
        raise RecipeError(
            f'{table.kind} = "{name}" asks for {" and ".join(strange)}, which there is not. Its positional parameters '
            f"can be: {', '.join(table.offers)}. A setting stands behind a * in the signature"
        )
    wanted = settings_of(function)
    if misplaced := [name for name in wanted if name in table.offers]:
        raise RecipeError(
            f'{table.kind} = "{name}" has {" and ".join(misplaced)} behind the * of its signature, among the settings. '
            "What it looks at stands before the *"
        )
    missing = [setting for setting, default in wanted.items() if default is REQUIRED and setting not in settings]
    if missing:
        raise RecipeError(
            f'{table.kind} = "{name}" needs {" and ".join(missing)}, which the recipe does not set: '
            f"set it, or choose another {table.kind} ({', '.join(sorted(table))})"
        )
    defaults = {setting: default for setting, default in wanted.items() if default is not REQUIRED}
    chosen = {**defaults, **{setting: settings[setting] for setting in wanted if setting in settings}}
    hints = _hints(function)
    for setting, value in chosen.items():
        what, bounds = f'{table.kind} = "{name}": {setting} = {value!r}', bounds_of(hints.get(setting))
        _check(what, value, hints.get(setting), bounds)
        _check_beside(what, value, bounds, {**settings, **chosen})
    return Bound(table.kind, name, function, data, chosen)


class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED = _Required()
"""Stands where a setting has no default."""


def data_of(function: Callable[..., object]) -> tuple[str, ...]:
    """The data that a variant names. Example: `data_of(clipped_ratio)` is `("log_ratio_T", "advantages_T")`."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)


def settings_of(function: Callable[..., object]) -> dict[str, Any]:
    """The settings that a variant names, each with its default or `REQUIRED`.

    Example: `settings_of(clipped_ratio)` is `{"clip_low": REQUIRED, "clip_high": REQUIRED}`.
    """
    parameters = inspect.signature(function).parameters.values()
    return {p.name: REQUIRED if p.default is p.empty else p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def bounds_of(hint: Any) -> Bounds:
    """The bounds in an annotation. Example: `bounds_of(Share)` is `Bounds(at_least=0, at_most=1)`."""
    return next((each for each in get_args(hint)[1:] if isinstance(each, Bounds)), Bounds())


def _hints(function: Callable[..., object]) -> dict[str, Any]:
    """A user's own function need not have annotations, nor such as can be looked up outside of its editor."""
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, TypeError):
        return {}


def _check(what: str, value: Any, hint: Any, bounds: Bounds) -> None:
    """Raise unless the value is what the annotation says."""
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if kind is bool and not isinstance(value, bool):
        raise RecipeError(f"{what}: needs true or false")
    if kind == Pair:
        fits = _is_pair(value) and all(map(bounds.hold, value)) and (value[0] <= value[1] or not bounds.rising)
        words = "a list of two numbers"
    elif kind in (int, float):
        fits = _is_number(value) and (kind is float or isinstance(value, int)) and bounds.hold(value)
        words = "a whole number" if kind is int else "a number"
    else:
        return
    if not fits:
        raise RecipeError(f"{what}: needs {', '.join(filter(None, (words, str(bounds))))}")


def _check_beside(what: str, value: Any, bounds: Bounds, settings: Mapping[str, Any]) -> None:
    """Raise if the value contradicts another setting of the recipe; one that is not known there binds nobody."""
    for words, expression, contradict in (
        ("not below", bounds.not_below, operator.lt),
        ("below", bounds.below, operator.ge),
    ):
        other = settings.get(expression.removeprefix("1 + "))
        if not expression or other is None:
            continue
        limit = other + expression.startswith("1 + ")
        if contradict(value, limit):
            raise RecipeError(f"{what}: needs to be {words} {expression}, which is {limit:g}")


def _is_pair(value: object) -> TypeGuard[Sequence[float]]:
    if not isinstance(value, list | tuple):
        return False
    items = cast("Sequence[object]", value)
    return len(items) == 2 and all(isinstance(item, int | float) and math.isfinite(item) for item in items)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _unknown(kind: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f' Did you mean "{close[0]}"?' if close else ""
    return f'{kind} = "{name}": there is no such entry.{hint} There are: {", ".join(sorted(known))}'
