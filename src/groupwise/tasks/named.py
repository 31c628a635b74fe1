"""What a recipe names outside of itself: `file.py:name` beside the recipe, or `package.module:name`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from groupwise.errors import TaskError


def load_named(named: str, folder: Path, setting: str) -> Any:
    """The object of that name. Example: `load_named("tools.py:add", Path("recipes/sums"), "task.tools")`"""
    place, colon, name = named.rpartition(":")
    if not colon or not place or not name:
        raise TaskError(f"{setting} = {named!r}: write file.py:name, or package.module:name")
    found: Any = _file(folder / Path(place).expanduser(), setting) if place.endswith(".py") else _module(place, folder)
    for part in name.split("."):
        if part not in dir(found):
            public = ", ".join(other for other in dir(found) if not other.startswith("_"))
            raise TaskError(f"{setting} = {named!r}: {place} has nothing called {name!r}. It has: {public[:300]}")
        found = getattr(found, part)
    return found


def _file(path: Path, setting: str) -> ModuleType:
    if not path.is_file():
        raise TaskError(f"{setting}: there is no file {path}: paths start at the recipe's folder")
    path = path.resolve()
    stamp = hashlib.sha256(f"{path}|{path.stat().st_mtime_ns}".encode(errors="surrogateescape")).hexdigest()[:16]
    name = f"groupwise_task_{stamp}"
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
        raise TaskError(f"{path} raised {type(error).__name__}: {error}") from error
    except BaseException:  # Ctrl-C: a half of it must not be taken for the whole the next time
        del sys.modules[name]
        raise
    return module


def _module(name: str, folder: Path) -> ModuleType:
    _let_import_from(folder.resolve())
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # as above
        raise TaskError(f"module {name} cannot be imported: {type(error).__name__}: {error}") from error


def _let_import_from(folder: Path) -> None:
    """Let a file import its neighbours, as a script could; at the end of the path, so that it hides nothing."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
