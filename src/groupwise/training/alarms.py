"""Signs that training goes wrong: one small pure function each, in a table. See `DETECTORS`.

    said = no_signal(History(steps=[{"zero_signal": 0.9, "reward": 0.0, "solved": 0.0}] * 5))
    said.text      "90 % of the groups of the last 5 steps taught nothing: all their completions were wrong alike."
    said.advice    "The problems are too hard for this policy: take easier ones, or raise train.group_size."

A detector sees the metrics of the steps so far and the evaluations so far, the newest last, and says what is wrong or
None. Its keyword-only parameters are its limits (`alarms.settings`). A falling entropy or growing completions are what
learning often looks like; so where that may be, a detector asks that the reward did not gain from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any, TypeAlias

from groupwise.errors import RecipeError

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class History:
    """What a detector may look at: a row of metrics a step and a row an evaluation, oldest first."""

    steps: Sequence[Row]
    evaluations: Sequence[Row] = ()

    def last(self, name: str, count: int) -> list[float]:
        """The metric's newest `count` values; empty if there are not so many yet."""
        values = self.all(name)
        return values[-count:] if len(values) >= count else []

    def first(self, name: str, count: int) -> list[float]:
        """The oldest `count` values; empty unless there are as many again behind them."""
        values = self.all(name)
        return values[:count] if len(values) >= 2 * count else []

    def all(self, name: str) -> list[float]:
        """All values, those that are missing left out."""
        return [float(row[name]) for row in self.steps if row.get(name) is not None]

    def reward_gain(self, count: int) -> float:
        """How far the mean reward has come from the first to the last `count` steps, in standard deviations within a
        group: 0 where nothing can be said."""
        first, last = self.first("reward", count), self.last("reward", count)
        spread = fmean(self.all("reward_std") or [0.0])
        return (fmean(last) - fmean(first)) / spread if first and spread > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Said:
    """A detector's words, what to do about it, and the numbers behind it."""

    text: str
    advice: str
    evidence: Mapping[str, float] = field(default_factory=dict[str, float])


Detector: TypeAlias = Callable[..., Said | None]


def no_signal(history: History, *, share: float = 0.8, steps: int = 5) -> Said | None:
    """Groups whose completions are all rewarded alike have no advantage, and teach nothing."""
    dead, solved = history.last("zero_signal", steps), history.last("solved", steps)
    if not dead or min(dead) <= share:
        return None
    right = fmean(solved) / fmean(dead) if solved else 0.0
    why = "all their completions were wrong alike" if right < 0.5 else "all their completions were right"
    advice = (
        "The problems are too hard for this policy: take easier ones, raise train.group_size, or begin with "
        "demonstrations (groupwise sft)."
        if right < 0.5
        else "There is nothing left to learn from these problems: take harder ones, or stop."
    )
    text = f"{fmean(dead):.0%} of the groups of the last {steps} steps taught nothing: {why}."
    return Said(text, advice, {"zero_signal": fmean(dead), "solved": right})


def collapse(history: History, *, share: float = 0.2, steps: int = 5, gain: float = 0.25) -> Said | None:
    """Entropy that is gone without having bought reward: the policy says the same whatever it is asked. A warm start
    has no rewards, and is there to lower the entropy."""
    first, last = history.first("entropy", steps), history.last("entropy", steps)
    if (
        not first
        or not history.all("reward")
        or median(last) >= share * median(first)
        or history.reward_gain(steps) > gain
    ):
        return None
    text = (
        f"The entropy has fallen from {median(first):.3g} to {median(last):.3g}, and the reward has not gained by it: "
        "the policy explores no more."
    )
    advice = "Lower optimizer.lr, raise algorithm.clip_high (dapo), or set an algorithm.entropy bonus."
    return Said(text, advice, {"entropy_at_start": median(first), "entropy": median(last)})


def kl(history: History, *, times: float = 10.0, least: float = 0.5, steps: int = 5) -> Said | None:
    """The policy runs away from the reference."""
    seen = history.all("kl")
    if len(seen) < 3 * steps:
        return None
    usual, now = median(seen[:-steps]), fmean(seen[-steps:])
    if now <= max(times * usual, least):
        return None
    text = f"The KL to the reference is {now:.3g}, {now / max(usual, 1e-9):.0f} times its usual {usual:.3g}."
    return Said(text, "Lower optimizer.lr, raise algorithm.beta, or go back to an earlier checkpoint.", {"kl": now})


def clipping(history: History, *, share: float = 0.3, steps: int = 5) -> Said | None:
    """So many tokens clipped that most of the update is thrown away."""
    lows, highs = history.last("clip_low", steps), history.last("clip_high", steps)
    clipped = [low + high for low, high in zip(lows, highs, strict=False)]
    if not clipped or min(clipped) <= share:
        return None
    text = f"{fmean(clipped):.0%} of the tokens of the last {steps} steps were clipped and taught nothing."
    advice = "Lower optimizer.lr, learner.passes or learner.updates_per_batch."
    return Said(text, advice, {"clipped": fmean(clipped)})


def length(history: History, *, times: float = 2.0, steps: int = 5, gain: float = 0.25) -> Said | None:
    """Completions that grow or shrink without the reward gaining by it."""
    first, last = history.first("length", steps), history.last("length", steps)
    if not first or history.reward_gain(steps) > gain:
        return None
    before, now = fmean(first), fmean(last)
    if before / times < now < before * times:
        return None
    way = "grown" if now > before else "shrunk"
    text = f"Completions have {way} from {before:.0f} to {now:.0f} tokens, and the reward has not gained by it."
    advice = (
        "Look at some of them: is it padding? A length reward, algorithm.weights = "
        '"token_mean_capped" (dr_grpo) or a lower sampling.max_new_tokens keeps them short.'
        if now > before
        else "Look at some of them: does a reward pay for saying nothing?"
    )
    return Said(text, advice, {"length_at_start": before, "length": now})


def repetition(history: History, *, share: float = 0.2, steps: int = 3) -> Said | None:
    """Completions that go round in circles."""
    last, begin = history.last("repetition", steps), history.all("repetition")[:steps]
    if not last or min(last) <= max(share, 2 * fmean(begin)):
        return None
    text = f"{fmean(last):.0%} of the completions of the last {steps} steps repeat themselves."
    advice = "Look at alarms.jsonl for one of them; add a repetition penalty to the rewards, or lower optimizer.lr."
    return Said(text, advice, {"repetition": fmean(last), "repetition_at_start": fmean(begin)})


def truncation(history: History, *, share: float = 0.2, steps: int = 5) -> Said | None:
    """Completions that the token limit cuts, whose reward says nothing about them."""
    cut = history.last("truncated", steps)
    if not cut or min(cut) <= share:
        return None
    text = f"{fmean(cut):.0%} of the completions of the last {steps} steps were cut by the limit of tokens."
    return Said(text, "Raise sampling.max_new_tokens, or reward completions that end.", {"truncated": fmean(cut)})


def outlier(history: History, *, times: float = 5.0, steps: int = 5) -> Said | None:
    """A reward far outside of all that were seen before: a hole in the reward function, as a rule."""
    sizes = history.all("reward_size")
    if len(sizes) <= steps or max(sizes[:-1]) <= 0 or sizes[-1] <= times * max(sizes[:-1]):
        return None
    text = f"A reward of size {sizes[-1]:.4g}: before this step none was larger than {max(sizes[:-1]):.4g}."
    advice = "Look at the completion in alarms.jsonl: a reward function pays for something that it should not."
    return Said(text, advice, {"reward_size": sizes[-1], "largest_before": max(sizes[:-1])})


def held_out(history: History, *, steps: int = 5) -> Said | None:
    """Rewarded more and more in training, and worse on problems that it never saw: the reward is gamed."""
    known = [row for row in history.evaluations if row.get("accuracy") is not None]
    if len(known) < 2:
        return None
    best, now = max(known, key=lambda row: float(row["accuracy"])), known[-1]
    if float(now["accuracy_high"]) >= float(best["accuracy_low"]):
        return None
    then = [float(r["reward"]) for r in history.steps if r["step"] <= best["step"] and r.get("reward") is not None]
    since = history.last("reward", steps)
    if not then or not since or fmean(since) <= fmean(then[-steps:]):
        return None
    text = (
        f"The held-out accuracy has fallen from {best['accuracy']:.3f} (step {best['step']}) to {now['accuracy']:.3f}, "
        f"while the training reward has risen from {fmean(then[-steps:]):.3g} to {fmean(since):.3g}."
    )
    advice = "What is rewarded is not what you want: read rollouts with a high reward, and mend the reward function."
    return Said(text, advice, {"accuracy": float(now["accuracy"]), "best_accuracy": float(best["accuracy"])})


DETECTORS: Mapping[str, Detector] = {
    "no_signal": no_signal,
    "collapse": collapse,
    "kl": kl,
    "clipping": clipping,
    "length": length,
    "repetition": repetition,
    "truncation": truncation,
    "outlier": outlier,
    "held_out": held_out,
}


def detectors_of(off: Sequence[str], settings: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Detector, Row]]:
    """Those that are on, each with its limits; a name or limit that there is not is a `RecipeError`."""
    for name in (*off, *settings):
        if name not in DETECTORS:
            raise RecipeError(f"alarms: there is no alarm {name!r}. There are: {', '.join(DETECTORS)}")
    for name, given in settings.items():
        kinds = inspect.signature(DETECTORS[name]).parameters.values()
        known = {parameter.name: parameter.default for parameter in kinds if parameter.kind is parameter.KEYWORD_ONLY}
        for key, value in given.items():
            if key not in known:
                raise RecipeError(f"alarms.settings.{name}.{key}: unknown. It has {', '.join(known)}")
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise RecipeError(f"alarms.settings.{name}.{key}: got {value!r}, needs a number above 0")
            if isinstance(known[key], int) and not isinstance(value, int):
                raise RecipeError(f"alarms.settings.{name}.{key}: got {value!r}, needs a whole number")
    return {name: (found, settings.get(name, {})) for name, found in DETECTORS.items() if name not in off}
