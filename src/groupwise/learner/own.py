"""An entry of the user's own: `surrogate = "my_loss.py:tempered"` in place of a name of a table.

    def tempered(log_ratio_T, advantages_T, *, power: float = 0.5):      # data by name, settings behind the *
        return -advantages_T * (power * log_ratio_T).exp() / power

The file is looked for where the recipe lies. What cannot work is said before a run begins.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from groupwise.errors import RecipeError

MOST_LISTED = 12


def load_own(kind: str, name: str, folder: Path) -> Callable[..., Any]:
    """The function behind `file.py:function` or `package.module:function`; `kind` is what it is to be.

    Example: `load_own("surrogate", "my_loss.py:tempered", recipe_folder)`
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise RecipeError(f'{kind} = "{name}": name a function as "file.py:function" or "package.module:function"')
    try:
        module = _from_file(folder / Path(place).expanduser()) if place.endswith(".py") else _module(place, folder)
    except FileNotFoundError as error:
        raise RecipeError(f'{kind} = "{name}": there is no file {error.filename}: paths start at the recipe') from error
    except (Exception, SystemExit) as error:  # a script's own `sys.exit` is no end of ours
        raise RecipeError(f'{kind} = "{name}": loading {place} raised {shown(error)}') from error
    found = vars(module).get(attribute)
    if not inspect.isfunction(found):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value) and key[0] != "_"]
        listed = ", ".join(functions[:MOST_LISTED]) + ", ..." * (len(functions) > MOST_LISTED)
        raise RecipeError(f'{kind} = "{name}": {place} has no function {attribute!r}. It has: {listed or "none"}')
    return found


def shown(error: BaseException) -> str:
    """The error and the line of the user's code that raised it."""
    others = (str(Path(__file__).parents[1]), str(Path(importlib.__file__).parent), "<frozen")
    theirs = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(others)]
    where = f" at {theirs[-1].filename}:{theirs[-1].lineno}, in {theirs[-1].name}" if theirs else ""
    return f"{type(error).__name__}: {ascii(str(error))[1:-1][:500]}{where}"


def _from_file(path: Path) -> ModuleType:
    """The file as a module; entries from one file share it."""
    path = path.resolve()
    stamp = hashlib.sha256(f"{path}|{path.stat().st_mtime_ns}".encode(errors="surrogateescape")).hexdigest()[:16]
    name = f"groupwise_own_{stamp}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None, path
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        _let_import_from(path.parent)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _module(name: str, folder: Path) -> ModuleType:
    _let_import_from(folder.resolve())
    return importlib.import_module(name)


def _let_import_from(folder: Path) -> None:
    """Let a file import its neighbours, as a script could; at the end of the path, so that it hides nothing."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
