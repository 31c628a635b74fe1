"""What `groupwise check` says of rewards: what a right answer earns, and what those earn who did no work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groupwise.cli.findings import Finding

if TYPE_CHECKING:
    from torch import Tensor

    from groupwise.rewards import Answers, Grade, NullScore
    from groupwise.training.build import Parts
    from groupwise.types import Completion, Problem, Sampling

_PROBLEMS = 16
"""Of the training problems, so many are graded with their own answer."""
_LAZY = 8
"""And so many with every null policy."""
_JUDGED = 500
"""Gold answers of each split that the task's own verifier looks at."""


def rewards(parts: Parts) -> Iterator[Finding]:
    """Right answers, null policies, and the task's own verifier on its own gold answers."""
    from groupwise.errors import GroupwiseError
    from groupwise.rewards import null_scores
    from groupwise.training.trainer import run_to_end

    yield from _verifier(parts)
    if not parts.rewards:
        text = f"none is named, and the task {parts.task.name!r} brings none of its own"
        yield Finding("rewards", "error", text, '[[rewards]] with function = "correctness" or "reward.py:judge"')
        return
    said = _Said(parts)
    try:
        right = run_to_end(_best_grades(parts, said))
        nulls = run_to_end(null_scores(parts.rewards, parts.train.problems, limit=_LAZY, answers_of=said.answers))
    except GroupwiseError as error:
        yield Finding("rewards", "error", str(error), "mend the reward function it names")
        return
    yield from _worth(parts, right, nulls)
    yield from _paid_for_nothing(right, nulls)


def _verifier(parts: Parts) -> Iterator[Finding]:
    from groupwise.tasks.report import look_at

    report = look_at(parts.task, _JUDGED)
    if not report.judged:
        return
    told = f"gold answers right by the task's own verifier: {report.judged - len(report.wrong):,} of {report.judged:,}"
    if report.wrong:
        cure = f"look at {', '.join(report.wrong[:5])}: is the gold answer in the form that the verifier reads?"
        yield Finding("gold", "warning", told, cure, {"share": report.gold, "wrong": list(report.wrong[:100])})
    else:
        yield Finding("gold", "ok", told, values={"share": report.gold})


def _worth(parts: Parts, right: Sequence[Grade], nulls: Sequence[NullScore]) -> Iterator[Finding]:
    """The rewards in one line each: of right answers, and of every null policy."""
    weights = {reward.name: reward.weight for reward in parts.rewards}
    totals: dict[str, float] = {}
    for score in nulls:
        totals[score.policy] = totals.get(score.policy, 0.0) + weights.get(score.function, 1.0) * score.mean
    gold = _mean(grade.reward or 0.0 for grade in right) if right else None
    names = ", ".join(f"{reward.name} x {reward.weight:g}" for reward in parts.rewards)
    first = "no right answers are known to try them with" if gold is None else f"a right answer earns {gold:.3g}"
    told = ", ".join(f"{name} {value:.3g}" for name, value in totals.items())
    values = {"gold": gold, "null": totals}
    yield Finding("rewards", "ok", f"{names}\n{first} (mean)\nanswers that solve nothing earn: {told}", values=values)
    if gold is not None and gold <= max([0.0, *totals.values()]):
        text = "a right answer is not worth more than doing nothing, in any form that was tried"
        cure = "does the reward read the answer in the form that your prompt asks for?"
        yield Finding("rewards", "warning", text, cure)


def _paid_for_nothing(right: Sequence[Grade], nulls: Sequence[NullScore]) -> Iterator[Finding]:
    """A warning for every function that pays a null policy, with the text that earned most."""
    most: dict[str, NullScore] = {}
    for score in nulls:
        if score.pays and (score.function not in most or score.best > most[score.function].best):
            most[score.function] = score
    for function, score in most.items():
        gold = _mean(part for grade in right if (part := grade.parts.get(function)) is not None)
        text = f"{function} pays the null policy '{score.policy}' up to {score.best:.3g}: '{score.sample}'"
        if right and score.best >= gold:
            text += f"\nwhich is what a right answer gets ({gold:.3g})"
        cure = "fine where only the layout is rewarded; else the policy will find that out: look at the function"
        values = {"function": function, "policy": score.policy, "best": score.best}
        yield Finding("rewards", "warning", text, cure, values)


@dataclass(frozen=True, slots=True)
class _Said:
    """Texts as if the model had said them, in every turn where its task is a conversation."""

    parts: Parts

    async def answers(self, problems: Sequence[Problem], texts: Sequence[str]) -> Answers:
        """The batch that reward functions see."""
        from groupwise.rollouts.grade import answers
        from groupwise.rollouts.rollouts import Asked, sampled_group
        from groupwise.training.build import sampling_of
        from groupwise.training.talk import conversations_of

        groups = []
        for problem, text in zip(problems, texts, strict=True):
            engine = _Parrot(self.parts.policy.tokenizer, text)
            asked, talks = Asked(problem, (0,), [0]), conversations_of(self.parts, engine)
            groups.append(await sampled_group(engine, asked, sampling_of(self.parts.recipe), talks))
        return answers(groups)

    async def grades(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Grade]:
        """What these texts earn; one that cannot be graded is an error here."""
        from groupwise.errors import RewardError
        from groupwise.rewards import grade

        grades = await grade(self.parts.rewards, await self.answers(problems, texts))
        failed = next((grade for grade in grades if grade.outcome == "unknown"), None)
        if failed is not None:
            raise RewardError(failed.why)
        return grades


@dataclass(frozen=True, slots=True)
class _Parrot:
    """An engine that says one text, whatever it is asked."""

    tokenizer: Any
    text: str
    exact: bool = True

    async def sample(
        self, prompt_ids: Sequence[int], n: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        from groupwise.types import Completion

        ids = tuple(self.tokenizer.encode(self.text, add_special_tokens=False))
        return [Completion(ids, (0.0,) * len(ids), "stop", self.text)] * n

    async def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """There are none."""


async def _best_grades(parts: Parts, said: _Said) -> list[Grade]:
    """For each problem with a known answer, the grade of the form of it that earns most."""
    tried = [(p, text) for p in parts.train.problems[:_PROBLEMS] for text in _right_answers(parts, p)]
    grades = await said.grades([problem for problem, _ in tried], [text for _, text in tried])
    best: dict[str, Grade] = {}
    for (problem, _), grade in zip(tried, grades, strict=True):
        if problem.id not in best or (grade.reward or 0.0) > (best[problem.id].reward or 0.0):
            best[problem.id] = grade
    return list(best.values())


def _right_answers(parts: Parts, problem: Problem) -> list[str]:
    """A right answer in the forms that graders read: the task's own demonstration, tags, a box, the bare answer."""
    gold = gold_of(problem.columns)
    own = [parts.task.demonstrations(problem)] if parts.task.demonstrations is not None else []
    if not gold:
        return own
    tags = f"<reasoning>\n{gold}\n</reasoning>\n<answer>\n{gold}\n</answer>\n"
    return [*own, gold, f"#### {gold}", f"\\boxed{{{gold}}}", f"<answer>{gold}</answer>", tags]


def gold_of(columns: Mapping[str, Any]) -> str:
    """The row's answer as a text, "" if it has none."""
    answer = columns.get("answer")
    return str(answer) if isinstance(answer, str | int | float) else ""


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / max(len(listed), 1)
