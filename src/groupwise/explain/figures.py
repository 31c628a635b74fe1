"""The figures of a walk: advantages, ratios, the clipped objective, probabilities before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch

from groupwise.explain.chapters import Figure, shown
from groupwise.explain.plot import Plot
from groupwise.explain.walk import Answer, Walk
from groupwise.explain.words import Words

DRAWABLE = frozenset({"log_ratio_T", "advantages_T"})
"""A surrogate that looks at nothing else is a curve over the ratio."""


def figure(name: Figure, walk: Walk, words: Words) -> str:
    """One figure as SVG."""
    return FIGURES[name](walk, words)


def _advantages(walk: Walk, words: Words) -> str:
    values = [answer.advantage for answer in walk.answers]
    reach = max([abs(value) for value in values] + [0.1]) * 1.3
    plot = Plot((0.5, len(values) + 0.5), (-reach, reach))
    plot.level(0)
    for number, answer in enumerate(walk.answers, 1):
        kind = _kind(answer)
        plot.bar(number - 0.35, number + 0.35, answer.advantage, kind, f"{answer.advantage:+.4f}")
        plot.text(number, answer.advantage, f"{answer.advantage:+.2f}", lower=-6 if answer.advantage >= 0 else 16)
        plot.below(number, shown(answer.text)[:10])
    return plot.svg(words["figure_advantages"])


def _ratios(walk: Walk, words: Words) -> str:
    section = walk.recipe.algorithm
    low, high = 1 - section.clip_low, 1 + min(section.clip_high, 10.0)
    courses = list(_courses(walk))
    values = [ratio for _, course, _ in courses for _, ratio in course] + [low, high]
    last = len(walk.updates) + 1
    plot = Plot((0.8, last + 0.2), (min(values) - 0.1, max(values) + 0.1))
    plot.band(low, high)
    plot.beside(low, 1.0, high)
    for answer, course, says in courses:
        plot.line(course, _kind(answer), says)
        plot.dot(*course[-1], _kind(answer), f"{says}: {course[-1][1]:.3f}")
    for number in range(1, last):
        plot.below(number, f"{words['update']} {number}")
    plot.below(last, words["after"])
    return plot.svg(words["figure_ratios"])


def _courses(walk: Walk) -> Iterator[tuple[Answer, list[tuple[float, float]], str]]:
    """The ratio of every token, update by update, and after the last one."""
    for number, answer in enumerate(walk.answers, 1):
        for token, after in enumerate(answer.ratios_after):
            place = answer.first_place + token
            seen = [(float(n), u.tokens[place].ratio) for n, u in enumerate(walk.updates, 1) if place in u.tokens]
            yield answer, [*seen, (len(walk.updates) + 1.0, after)], f"{number}: {shown(answer.tokens[token])}"


def _surrogate(walk: Walk, words: Words) -> str:
    last = walk.updates[-1].tokens.values() if walk.updates else ()
    advantages = sorted({look.advantage for look in last if look.advantage}, key=abs)[-2:] or [1.0, -1.0]
    widest = max([1.6, *(look.ratio for look in last)]) * 1.05
    reach = max(map(abs, advantages)) * widest
    plot = Plot((0.0, widest), (-reach, reach))
    plot.level(0)
    entry = walk.algorithm.surrogate
    if set(entry.data) <= DRAWABLE:
        ratio_T = torch.linspace(0.02, widest, 160, dtype=torch.float64)
        for advantage in advantages:
            # The objective is maximised, the surrogate minimised.
            objective_T = -entry(log_ratio_T=ratio_T.log(), advantages_T=torch.full_like(ratio_T, advantage))
            points = list(zip(ratio_T.tolist(), objective_T.tolist(), strict=True))
            plot.line(points, "good" if advantage > 0 else "bad", f"A = {advantage:+.2f}")
    for look in last:
        says = f"ratio {look.ratio:.3f}, slope {look.slope:+.3f}"
        plot.dot(look.ratio, -look.surrogate, "good" if look.advantage > 0 else "bad", says)
    section = walk.recipe.algorithm
    for value in (1 - section.clip_low, 1.0, 1 + section.clip_high):
        if 0 < value < widest:
            plot.below(value, f"{value:g}")
    return plot.svg(words["figure_surrogate"])


def _answers(walk: Walk, words: Words) -> str:
    distinct = list({answer.text: answer for answer in walk.answers}.values())
    most = max(max(answer.probability_before, answer.probability_after) for answer in distinct)
    plot = Plot((0.5, len(distinct) + 0.5), (0, most * 1.2))
    plot.level(0)
    for number, answer in enumerate(distinct, 1):
        before, after = answer.probability_before, answer.probability_after
        plot.bar(number - 0.36, number - 0.02, before, "soft", f"{before:.3f}")
        plot.bar(number + 0.02, number + 0.36, after, _kind(answer), f"{after:.3f}")
        plot.text(number - 0.19, before, f"{before:.2f}", lower=-5)
        plot.text(number + 0.19, after, f"{after:.2f}", lower=-5)
        plot.below(number, shown(answer.text)[:12])
    return plot.svg(words["figure_answers"])


def _kind(answer: Answer) -> str:
    return "good" if answer.advantage > 0 else "bad" if answer.advantage < 0 else "soft"


FIGURES: Mapping[Figure, Callable[[Walk, Words], str]] = {
    "advantages": _advantages,
    "ratios": _ratios,
    "surrogate": _surrogate,
    "answers": _answers,
}
