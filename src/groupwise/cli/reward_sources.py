"""Where `groupwise reward` takes its functions and its answers from."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from groupwise.errors import RewardError, TaskError

if TYPE_CHECKING:
    from groupwise.rewards import Answers, RewardFunction
    from groupwise.runs.rollouts import RolloutRow
    from groupwise.types import Problem, Prompt


def functions_of(name: str) -> list[RewardFunction]:
    """`reward.py` (every function in it that takes completions), `reward.py:judge`, a built-in, or a recipe's."""
    from groupwise.rewards import load_reward

    path = Path(name).expanduser()
    if path.suffix == ".toml":
        from groupwise.config import load_recipe

        loaded = load_recipe(path)
        found = [
            load_reward(section.function, section.weight, section.settings, loaded.folder, **section.handling)
            for section in loaded.recipe.rewards
        ]
        if not found:
            raise RewardError(f"{path} names no rewards: its task brings its own. Name a function")
        return found
    if path.suffix != ".py":
        return [load_reward(name)]
    names = _functions_in(path)
    return [load_reward(f"{path}:{function}") for function in names]


def _functions_in(path: Path) -> list[str]:
    from groupwise.rewards.load import module_of

    module = module_of(path)
    names = [
        name
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and _grades(value, module.__name__)
    ]
    if not names:
        raise RewardError(f"{path} has no function that takes `completions`, so none that could be a reward")
    return names


def _grades(value: Any, module: str) -> bool:
    if inspect.isclass(value) or inspect.getmodule(value) is None or value.__module__ != module:
        return False
    try:
        return "completions" in inspect.signature(value).parameters
    except (TypeError, ValueError):
        return False


def recorded(run: str, steps: Sequence[int] | None = None) -> list[RolloutRow]:
    """The rollouts of a run, all steps or some."""
    from groupwise.runs.folder import RunFolder

    folder = RunFolder.open(Path(run).expanduser())
    rows = [row for step in steps or folder.rollout_steps() for row in folder.rollouts(step)]
    if not rows:
        raise RewardError(f"{run} has no rollouts: the run made no step, or they were removed")
    return rows


def answers_of(rows: Sequence[RolloutRow]) -> Answers:
    """Recorded rollouts as reward functions saw them."""
    from groupwise.rewards import Answers

    names = list(dict.fromkeys(name for row in rows for name in row.columns))
    return Answers(
        prompts=[prompt_of(row.prompt) for row in rows],
        completions=[row.text for row in rows],
        completion_ids=[row.token_ids for row in rows],
        finish_reasons=["stop" if row.finish_reason == "stop" else "length" for row in rows],
        columns={name: [row.columns.get(name) for row in rows] for name in names},
    )


def prompt_of(stored: str) -> Prompt:
    """A prompt as it was before it was stored as a text."""
    if stored.startswith("[{"):
        try:
            messages = cast(Sequence[Mapping[str, Any]], json.loads(stored))
        except ValueError:
            return stored
        if all("role" in message for message in messages):
            return tuple(messages)
    return stored


def given(path: str) -> Answers:
    """Rows of a file: `prompt`, `completion` (or `completions`, a list), and any columns."""
    from groupwise.rewards import Answers
    from groupwise.tasks.reading import Source, read_split

    rows = read_split(Source(path), "train")
    flat: list[dict[str, Any]] = []
    for index, row in enumerate(rows):
        texts = row.get("completions", row.get("completion"))
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in cast(list[Any], texts)):
            raise TaskError(
                f"{path}, row {index}: there is no text in `completion` and no list of texts in `completions`; it has "
                f"{', '.join(row)}"
            )
        rest = {name: value for name, value in row.items() if name not in ("completion", "completions")}
        flat += [{**rest, "completion": text} for text in cast(list[str], texts)]
    names = list(dict.fromkeys(name for row in flat for name in row if name not in ("prompt", "completion")))
    return Answers(
        prompts=[_prompt(row.get("prompt", "")) for row in flat],
        completions=[row["completion"] for row in flat],
        completion_ids=[list(range(len(row["completion"].split()) + 1)) for row in flat],
        finish_reasons=["stop" for _ in flat],
        columns={name: [row.get(name) for row in flat] for name in names},
    )


def _prompt(value: Any) -> Prompt:
    return value if isinstance(value, str) else tuple(cast(Sequence[Mapping[str, Any]], value))


def made_up() -> Answers:
    """Sums, each with a right answer in four spellings, a wrong one, and none: where there is neither run nor file."""
    from groupwise.rewards import Answers

    sums = [(17, 25), (348, 9), (5, -12), (1000, 234)]
    texts = [
        "<reasoning>\nI add.\n</reasoning>\n<answer>\n{}\n</answer>",
        "<think>I add.</think>The answer is \\boxed{{{}}}.",
        "{}",
        "It is ${:,}.00",
        "<answer>{}7</answer>",
        "I do not know.",
    ]
    rows = [(f"{a} + {b} = ?", text.format(a + b), str(a + b)) for a, b in sums for text in texts]
    return Answers(
        prompts=[prompt for prompt, _, _ in rows],
        completions=[text for _, text, _ in rows],
        completion_ids=[list(range(len(text.split()) + 1)) for _, text, _ in rows],
        finish_reasons=["stop" for _ in rows],
        columns={"answer": [answer for _, _, answer in rows]},
    )


def problems_of(answers: Answers) -> list[Problem]:
    """The problems behind a batch of answers, each once."""
    from groupwise.types import Problem

    found: dict[str, Problem] = {}
    for row, prompt in enumerate(answers.prompts):
        columns = {name: values[row] for name, values in answers.columns.items()}
        found.setdefault(repr(prompt), Problem(f"row {row}", prompt, columns))
    return list(found.values())
