"""From a name in a recipe, or a Python callable, to a `RewardFunction`.

correctness              a built-in
reward.py:judge          a function (or any callable object) in a file beside the recipe
my_package.rewards:judge one in a module that can be imported
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from groupwise.errors import RewardError
from groupwise.rewards.contract import NOT_COLUMNS, RESERVED, Place, RewardFunction, name_of, unwrapped
from groupwise.rewards.failure import shown, where_raised
from groupwise.rewards.library import BUILT_IN
from groupwise.rewards.settings import checked, did_you_mean


def load_reward(
    function: str,
    weight: float = 1.0,
    settings: Mapping[str, Any] | None = None,
    folder: Path = Path(),
    **handling: Any,
) -> RewardFunction:
    """The function that a recipe names; files and modules are looked for in `folder`, where the recipe lies.

    `handling` is `on_error`, `deadline` and `cache` of the `RewardFunction`. A function of your own is imported here to
    check it, and once more in the process that it runs in.

    Example: `load_reward("length", settings={"target": 200})`, `load_reward("reward.py:judge", folder=recipe_folder)`
    """
    found, stamp = find(function, folder)
    reward = as_reward(found, weight, settings, name=function.rpartition(":")[2], **handling)
    if unwrapped(found) in BUILT_IN.values():
        return reward
    return replace(reward, place=Place(function, folder.resolve(), stamp))


def find(function: str, folder: Path) -> tuple[Callable[..., Any], str]:
    """The function of that name, and what changes when its file does."""
    place, colon, name = function.rpartition(":")
    if not colon:
        return _built_in(function), ""
    if not place or not name:
        raise RewardError(f"reward function {function!r}: write file.py:name or package.module:name")
    module = module_of(folder / Path(place).expanduser()) if place.endswith(".py") else _from_module(place, folder)
    return _member(module, name, function), module.__name__


def as_reward(
    function: Callable[..., Any],
    weight: float = 1.0,
    settings: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    **handling: Any,
) -> RewardFunction:
    """A callable as a reward function, its settings checked, named after itself unless `name` says otherwise.

    Example: `as_reward(correctness, settings={"numeric": 2.0})`, `as_reward(my_function, weight=0.5)`
    """
    called = name or name_of(function)
    if not callable(function):
        raise RewardError(f"{called!r} is given as a reward function but cannot be called")
    if inspect.isclass(function):
        raise RewardError(
            f"reward function {called!r} is a class: give an instance of it (in a file: `judge = {called}()`)"
        )
    if not math.isfinite(weight):
        raise RewardError(f"reward function {called!r} has weight {weight}: a weight is a finite number")
    given = dict(settings or {})
    if unwrapped(function) in BUILT_IN.values():
        built_in, bound = _unbound(function)
        return RewardFunction(called, built_in, weight, checked(called, built_in, {**bound, **given}), **handling)
    _check_own(called, function, given)
    return RewardFunction(called, function, weight, given, **handling)


def _unbound(function: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A built-in and the settings that partials bound to it."""
    bound: dict[str, Any] = {}
    while isinstance(function, functools.partial):
        bound = {**function.keywords, **bound}
        function = function.func
    return function, bound


def _check_own(name: str, function: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    taken = sorted((RESERVED | NOT_COLUMNS) & settings.keys())
    if taken:
        raise RewardError(
            f"reward function {name!r}: a setting may not be called {taken[0]!r}; the function is given that"
        )
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C, without a signature
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for setting in settings:
        if setting not in parameters:
            raise RewardError(
                f"reward function {name!r} does not take the setting {setting!r}{did_you_mean(setting, parameters)}. "
                f"It takes: {', '.join(parameters) or 'nothing'}"
            )


def _built_in(name: str) -> Callable[..., Any]:
    if name in BUILT_IN:
        return BUILT_IN[name]
    raise RewardError(
        f"there is no built-in reward {name!r}{did_you_mean(name, BUILT_IN)}. There are: {', '.join(BUILT_IN)}. "
        "For a function of your own write file.py:name or package.module:name"
    )


def module_of(path: Path) -> ModuleType:
    """The file as a module. Two functions from one file share it, and with it whatever it keeps at its top level."""
    if not path.is_file():
        raise RewardError(f"there is no file {path} to take a reward function from: paths start at the recipe's folder")
    path = path.resolve()
    stamp = hashlib.sha256(f"{path}|{path.stat().st_mtime_ns}".encode(errors="surrogateescape")).hexdigest()[:16]
    name = f"groupwise_reward_{stamp}"
    if name in sys.modules:
        return sys.modules[name]
    _let_import_from(path.parent)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script's own `sys.exit` is no end of ours
        del sys.modules[name]
        raise RewardError(f"{path} raised {shown(error)}{where_raised(error, (__file__,))}") from error
    except BaseException:  # Ctrl-C: a half of it must not be taken for the whole the next time
        del sys.modules[name]
        raise
    return module


def _from_module(name: str, folder: Path) -> ModuleType:
    _let_import_from(folder.resolve())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise RewardError(f"module {name} needs the module {error.name}, which is not installed") from error
        raise RewardError(f"there is no module {name}: install it, or write file.py:name for a file") from error
    except (Exception, SystemExit) as error:  # a script's own `sys.exit` is no end of ours
        where = where_raised(error, (__file__, importlib.__file__))
        raise RewardError(f"module {name} raised {shown(error)}{where}") from error


def _let_import_from(folder: Path) -> None:
    """Let a reward file import its neighbours, as a script could; at the end of the path, so that it hides nothing."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _member(module: ModuleType, name: str, function: str) -> Callable[..., Any]:
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            public = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
            raise RewardError(
                f"{module.__file__} has no {name!r} (reward function {function!r}){did_you_mean(name, public)}. "
                f"It has: {', '.join(public) or 'nothing that can be called'}"
            ) from error
    if not callable(found):
        raise RewardError(f"reward function {function!r} is a {type(found).__name__}, which cannot be called")
    return found
