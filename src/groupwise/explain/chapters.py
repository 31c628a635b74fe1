"""From a walk to chapters: a few sentences, the formula, a table of numbers, and the function that computed them.

chapters(walk, words("en"))[2].title      "3  Compare within the group"
chapters(walk, words("en"))[2].code       ("groupwise.maths.advantages.group_normalized",)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from groupwise.explain.looks import UpdateLook
from groupwise.explain.walk import Answer, Walk
from groupwise.explain.words import Words
from groupwise.maths.groups import STD_FLOOR
from groupwise.maths.sequences import log_ratio
from groupwise.models.policy import Policy
from groupwise.rewards.grading import grade
from groupwise.rollouts.rollouts import Rollouts
from groupwise.runs.text import safe_text

ZERO = 1e-6
"""Below this a sum in fp32 is 0 but for rounding."""

Figure: TypeAlias = Literal["advantages", "ratios", "surrogate", "answers"]


@dataclass(frozen=True, slots=True)
class Table:
    """Cells are texts; a row's tone is the sign of the advantage that it is about, 0 for none."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    tones: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Chapter:
    """One part of the story. `code` are the dotted names of the functions behind its numbers."""

    title: str
    paragraphs: tuple[str, ...]
    code: tuple[str, ...]
    formulas: tuple[str, ...] = ()
    table: Table | None = None
    figure: Figure | None = None


def chapters(walk: Walk, words: Words) -> list[Chapter]:
    """The whole story, in order."""
    return [
        _sample(walk, words),
        _grade(walk, words),
        _advantages(walk, words),
        _ratio(walk, words),
        _clip(walk, words),
        _kl(walk, words),
        _loss(walk, words),
        _moved(walk, words),
    ]


def name_of(function: Callable[..., Any]) -> str:
    """The dotted name. Example: `name_of(group_normalized)` is `"groupwise.maths.advantages.group_normalized"`."""
    return f"{function.__module__}.{function.__qualname__}"


def shown(text: str) -> str:
    """What a model wrote, on one line, its spaces and line ends visible."""
    return repr(safe_text(text))[1:-1]


def _sample(walk: Walk, words: Words) -> Chapter:
    rows = [
        (str(number), shown(answer.text), shown(" ".join(answer.tokens)), f"{answer.probability_before:.3f}")
        for number, answer in enumerate(walk.answers, 1)
    ]
    return Chapter(
        title=words["sample"],
        paragraphs=(words["sample_text"].format(size=len(walk.answers), draw=walk.draw),),
        formulas=(f"{words['prompt']} {shown(str(walk.problem.prompt))}",),
        code=(name_of(Rollouts.sample), name_of(Policy.logprobs)),
        table=_table(("#", words["answer"], words["tokens"], words["probability"]), rows),
    )


def _grade(walk: Walk, words: Words) -> Chapter:
    names = list(walk.answers[0].parts)
    rows = [
        (str(number), shown(answer.text), *(_number(answer.parts[name]) for name in names), _number(answer.reward))
        for number, answer in enumerate(walk.answers, 1)
    ]
    return Chapter(
        title=words["grade"],
        paragraphs=(words["grade_text"].format(gold=walk.problem.columns.get("answer")),),
        code=(name_of(grade),),
        table=_table(("#", words["answer"], *names, words["reward"]), rows),
    )


def _advantages(walk: Walk, words: Words) -> Chapter:
    entry = walk.algorithm.advantage
    paragraphs = [words["advantages_text"].format(mean=f"{walk.mean:.2f}", std=f"{walk.std:.2f}")]
    if not any(answer.advantage for answer in walk.answers):
        paragraphs.append(words["no_signal"])
    formulas = [_summary(entry.function, words)]
    if entry.name == "group_normalized":
        best = max((a for a in walk.answers if a.reward is not None), key=lambda answer: answer.advantage)
        formulas.append(f"({best.reward:g} - {walk.mean:g}) / ({walk.std:.4f} + {STD_FLOOR:g}) = {best.advantage:+.4f}")
    rows = [
        (str(number), shown(answer.text), _number(answer.reward), f"{answer.advantage:+.2f}")
        for number, answer in enumerate(walk.answers, 1)
    ]
    return Chapter(
        title=words["advantages"],
        paragraphs=tuple(paragraphs),
        formulas=tuple(formulas),
        code=(name_of(entry.function),),
        table=_table(
            ("#", words["answer"], words["reward"], words["advantage"]), rows, [_sign(a) for a in walk.answers]
        ),
        figure="advantages",
    )


def _ratio(walk: Walk, words: Words) -> Chapter:
    paragraphs = [words["ratio_text"], words["ratio_first"].format(passes=len(walk.updates))]
    table = None
    if (chosen := followed(walk)) is not None:
        answer, token = chosen
        number = next(n for n, each in enumerate(walk.answers, 1) if each is answer)
        text = shown(answer.tokens[token])
        paragraphs.append(
            words["ratio_one"].format(token=f"'{text}'", number=number, advantage=f"{answer.advantage:+.2f}")
        )
        table = _table(
            tuple(words[key] for key in ("update", "old_logprob", "new_logprob", "difference", "the_ratio")),
            list(_followed_rows(walk, answer, token, words)),
        )
    return Chapter(
        title=words["ratio"],
        paragraphs=(*paragraphs, words["ratio_other"]),
        formulas=("ratio = pi(o_t | q, o_<t) / pi_old(o_t | q, o_<t) = exp(logprob - logprob_old)",),
        code=(name_of(log_ratio), name_of(walk.algorithm.ratio.function)),
        table=table,
        figure="ratios",
    )


def followed(walk: Walk) -> tuple[Answer, int] | None:
    """The token to look at closely: of the answers above the mean, the one whose ratio went furthest."""
    candidates = [
        (abs(ratio - 1), number, token)
        for number, answer in enumerate(walk.answers)
        for token, ratio in enumerate(answer.ratios_after)
        if answer.advantage > 0
    ]
    if not candidates:
        return None
    _, number, token = max(candidates)
    return walk.answers[number], token


def _followed_rows(walk: Walk, answer: Answer, token: int, words: Words) -> Iterator[tuple[str, ...]]:
    place = answer.first_place + token
    for number, update in enumerate(walk.updates, 1):
        if (look := update.tokens.get(place)) is not None:
            yield _ratio_row(str(number), look.old_logprob, look.logprob, look.ratio)
    yield _ratio_row(words["after"], answer.before[token], answer.after[token], answer.ratios_after[token])


def _ratio_row(when: str, old: float, now: float, ratio: float) -> tuple[str, ...]:
    return when, f"{old:.4f}", f"{now:.4f}", _signed(now - old, 4), f"{ratio:.4f}"


def _clip(walk: Walk, words: Words) -> Chapter:
    section = walk.recipe.algorithm
    surrogate = walk.algorithm.surrogate.function
    rows = [
        (
            str(number),
            f"{min(look.ratio for look in update.tokens.values()):.4f}",
            f"{max(look.ratio for look in update.tokens.values()):.4f}",
            f"{sum(look.slope == 0 for look in update.tokens.values())} / {len(update.tokens)}",
        )
        for number, update in enumerate(walk.updates, 1)
        if update.tokens
    ]
    return Chapter(
        title=words["clip"],
        paragraphs=(words["clip_text"].format(low=f"{1 - section.clip_low:g}", high=f"{1 + section.clip_high:g}"),),
        formulas=(_summary(surrogate, words),),
        code=(name_of(surrogate),),
        table=_table((words["update"], words["smallest"], words["largest"], words["stopped"]), rows),
        figure="surrogate",
    )


def _kl(walk: Walk, words: Words) -> Chapter:
    divergence = walk.algorithm.divergence.function
    if not walk.algorithm.kl_in_loss:
        return Chapter(words["kl"], (words["kl_off"],), (name_of(divergence),))
    rows = [(str(number), f"{_mean_kl(update):.6f}") for number, update in enumerate(walk.updates, 1) if update.tokens]
    return Chapter(
        title=words["kl"],
        paragraphs=(words["kl_text"].format(beta=f"{walk.recipe.algorithm.beta:g}"),),
        formulas=(_summary(divergence, words),),
        code=(name_of(divergence),),
        table=_table((words["update"], words["mean_kl"]), rows),
    )


def _mean_kl(update: UpdateLook) -> float:
    kl = [look.kl for look in update.tokens.values() if look.kl is not None]
    return sum(kl) / len(kl)


def _loss(walk: Walk, words: Words) -> Chapter:
    weights = walk.algorithm.weights
    paragraphs = [words["loss_text"].format(weights=weights.name)]
    if walk.updates and abs(walk.updates[0].loss) < ZERO:
        paragraphs.append(words["loss_zero"])
    rows = [
        (str(number), _signed(update.loss, 6), f"{update.gradient_norm:.4f}", f"{update.learning_rate:g}")
        for number, update in enumerate(walk.updates, 1)
    ]
    return Chapter(
        title=words["loss"],
        paragraphs=tuple(paragraphs),
        formulas=(_summary(weights.function, words),),
        code=("groupwise.learner.objective.objective", name_of(weights.function)),
        table=_table((words["update"], words["the_loss"], words["gradient"], words["rate"]), rows),
    )


def _moved(walk: Walk, words: Words) -> Chapter:
    rewards = [(answer.reward, answer.again_reward) for answer in walk.answers]
    most = max(walk.moved, key=lambda moved: moved.change / max(moved.size, 1e-12))
    rows = [
        (
            str(number),
            shown(answer.text),
            f"{answer.advantage:+.2f}",
            f"{answer.probability_before:.3f}",
            f"{answer.probability_after:.3f}",
            shown(answer.again),
        )
        for number, answer in enumerate(walk.answers, 1)
    ]
    head = ("#", words["answer"], words["advantage"], words["before"], words["after"], words["again"])
    return Chapter(
        title=words["moved"],
        paragraphs=(
            words["moved_text"].format(
                size=len(rewards),
                **_turned(walk),
                right_before=sum(before is not None and before > walk.mean for before, _ in rewards),
                right_after=sum(after is not None and after > walk.mean for _, after in rewards),
            ),
            words["moved_weights"].format(share=f"{most.change / max(most.size, 1e-12):.1%}"),
        ),
        code=("groupwise.learner.optimizer.PolicyOptimizer.step", "groupwise.training.step.grpo_step"),
        table=_table(head, rows, [_sign(answer) for answer in walk.answers]),
        figure="answers",
    )


def _turned(walk: Walk) -> dict[str, int]:
    """How many answers there are above and below the mean, and how many of them went the way they should."""
    above = [answer.probability_after > answer.probability_before for answer in walk.answers if answer.advantage > 0]
    below = [answer.probability_after < answer.probability_before for answer in walk.answers if answer.advantage < 0]
    return {"above": len(above), "up": sum(above), "below": len(below), "down": sum(below)}


def _table(head: Sequence[str], rows: Sequence[tuple[str, ...]], tones: Sequence[int] = ()) -> Table:
    return Table(tuple(head), tuple(rows), tuple(tones) or (0,) * len(rows))


def _sign(answer: Answer) -> int:
    return (answer.advantage > 0) - (answer.advantage < 0)


def _signed(value: float, digits: int) -> str:
    """With its sign, and without one where it rounds to 0."""
    return f"{value:+.{digits}f}" if round(value, digits) else f"{0:.{digits}f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _summary(function: Callable[..., Any], words: Words) -> str:
    """Its formula in the language of the page, or what its docstring says first: of an entry that is its formula."""
    said = words.get(f"formula_{function.__name__}") if function.__module__.startswith("groupwise.") else None
    first = (inspect.getdoc(function) or function.__qualname__).split("\n\n")[0]
    return said or " ".join(first.replace("`", "").split())
