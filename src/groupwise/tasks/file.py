"""A task of one's own in one file: `task.kind = "file"`, `path = "sums.py:sums"`.

    def sums(digits=1):                                            # settings come from task.settings
        for n in range(10**digits):
            yield {"prompt": f"{n}+{n}=", "answer": str(2 * n)}

The function returns rows, as above, or a whole `Task` with its own rewards, held-out problems and environment. A list
of rows or a `Task` under that name serves as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from groupwise.errors import TaskError
from groupwise.tasks.named import load_named
from groupwise.tasks.rows import bounded, rows
from groupwise.tasks.task import Task, system_words


def file(
    path: str,
    *,
    settings: Mapping[str, Any] | None = None,
    hold_out: int = 0,
    limit: int | None = None,
    system_prompt: str | None = None,
    folder: Path = Path(),
    seed: int = 0,
) -> Task:
    """The task that a file makes. `hold_out` and `limit` are for rows; a `Task` says these things itself.

    Example: `file("sums.py:sums", settings={"digits": 2}, hold_out=20)`
    """
    made = load_named(path, folder, "task.path")
    given = dict(settings or {})
    if callable(made):
        made = _called(made, path, given, seed, limit, hold_out)
    elif given:
        raise TaskError(f"task.settings is set, but {path} is no function that could take them: leave them away")
    if isinstance(made, Task):
        if hold_out:
            raise TaskError(f"task.hold_out is set, but {path} makes a Task, which has held-out problems of its own")
        words = made.system_prompt if system_prompt is None else system_words(system_prompt, made.system_prompt, path)
        return replace(made, train=made.train[:limit], system_prompt=words)
    if isinstance(made, str | bytes | Mapping) or not isinstance(made, Iterable):
        raise TaskError(f"{path} gives a {type(made).__name__}: it has to give a Task, or rows with a prompt each")
    name = path.rpartition(":")[2]
    return rows(
        cast("Iterable[Mapping[str, Any]]", made),
        name=name,
        hold_out=hold_out,
        limit=limit,
        system_prompt=system_prompt,
        seed=seed,
    )


def _called(make: Any, path: str, settings: dict[str, Any], seed: int, limit: int | None, hold_out: int) -> Any:
    parameters = inspect.signature(make).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [name for name in settings if name not in parameters and not takes_all]
    if unknown:
        raise TaskError(
            f"{path} does not take the setting {unknown[0]!r}. It takes: {', '.join(parameters) or 'nothing'}"
        )
    if "seed" in parameters:
        settings.setdefault("seed", seed)
    try:
        made = make(**settings)
        # Rows are made here, so that what a generator raises is told in the same way; an endless one ends at the limit.
        return bounded(made, path, limit, hold_out) if inspect.isgenerator(made) else made
    except TaskError:
        raise
    except (Exception, SystemExit) as error:  # whatever the file's code raises
        raise TaskError(f"{path} raised {type(error).__name__}: {error}") from error
