"""`groupwise reward`: try reward functions on answers, before a run and after it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from groupwise.errors import RewardError

if TYPE_CHECKING:
    from groupwise.rewards import NullScore
    from groupwise.rewards.report import FunctionReport


@dataclass(frozen=True, slots=True)
class RewardOptions:
    """The options of `groupwise reward`."""

    what: Annotated[str, typer.Argument(metavar="test|replay", help="What to do.")]
    name: Annotated[
        str,
        typer.Argument(
            metavar="REWARD|RUN", help="test: reward.py, reward.py:judge, a built-in, a recipe. replay: a run."
        ),
    ]
    run: Annotated[str | None, typer.Option("--run", help="test: on the rollouts of this run.")] = None
    data: Annotated[
        str | None, typer.Option("--data", help="test: on these rows (prompt, completion or completions, columns).")
    ] = None
    function: Annotated[
        list[str], typer.Option("--function", help="replay: with this function; again for more. None: the run's own.")
    ] = ()  # pyright: ignore[reportAssignmentType] - typer gives a list
    rows: Annotated[int, typer.Option("--rows", min=1, help="test: at most so many answers.")] = 2000


def reward(options: RewardOptions) -> None:
    """Try reward functions on recorded or given answers, or see what a run would have learnt with others.

    A test says what a function paid, how long it took, and what it pays for nothing.

    \b
    groupwise reward test reward.py --run runs/NAME
    groupwise reward test correctness --data answers.jsonl
    groupwise reward replay runs/NAME --function reward.py:judge
    """
    if options.what == "test":
        lines = _tested(options)
    elif options.what == "replay":
        from groupwise.cli.reward_replay import replayed

        lines = replayed(options.name, list(options.function))
    else:
        raise RewardError(f"groupwise reward {options.what}: there are `test` and `replay`")
    for line in lines:
        typer.echo(line)


def _tested(options: RewardOptions) -> Iterator[str]:
    from groupwise.cli.reward_sources import answers_of, functions_of, given, made_up, problems_of, recorded
    from groupwise.rewards import null_scores
    from groupwise.rewards.report import report_on

    if options.run is not None and options.data is not None:
        raise RewardError("groupwise reward test: --run and --data both say which answers; give one of them")
    rewards = functions_of(options.name)
    if options.run is not None:
        answers, source = answers_of(recorded(options.run)[: options.rows]), f"rollouts of {options.run}"
    elif options.data is not None:
        answers, source = given(options.data), f"answers of {options.data}"
    else:
        answers, source = made_up(), "made-up answers to sums (name a run or a file with --run or --data)"
    answers = answers.rows(range(min(len(answers), options.rows)))
    yield f"{len(answers):,} {source}"
    reports = asyncio.run(report_on(rewards, answers))
    for report in reports:
        yield from _about(report)
    yield from _agreements(reports)
    yield from _nulls(asyncio.run(null_scores(rewards, problems_of(answers))), reports)


def _about(report: FunctionReport) -> Iterator[str]:
    yield ""
    yield f"{report.name}: {report.milliseconds:.3g} ms an answer"
    if report.summary:
        yield "  " + "  ".join(f"{name} {value:.4g}" for name, value in report.summary.items())
        yield "  " + "  ".join(f"{value:.4g} ({share:.0%})" for value, share in report.commonest())
    count = len(report.parts)
    shares = {
        "None (not graded)": report.outcomes.get("ungraded", 0),
        "wrong by a limit": report.outcomes.get("wrong", 0),
        "unknown (failed)": report.outcomes.get("unknown", 0),
    }
    told = [f"{name} {number / count:.1%}" for name, number in shares.items() if number]
    if told:
        yield f"  {', '.join(told)}"
    if report.why:
        yield f"  the first failure: {report.why}"
    values = report.values
    if len(values) > 1 and len(set(values)) == 1:
        yield "  WARNING: the same for every answer, so nothing could be learnt from it"


def _agreements(reports: Sequence[FunctionReport]) -> Iterator[str]:
    from groupwise.rewards.report import agreement_of

    for place, one in enumerate(reports):
        for other in reports[place + 1 :]:
            correlation, same = agreement_of(one, other)
            if math.isnan(same):
                yield f"{one.name} and {other.name}: no answer was graded by both"
                continue
            told = "one of them is constant" if correlation is None else f"correlation {correlation:+.2f}"
            yield f"{one.name} and {other.name}: {told}; {same:.0%} of the answers are paid by both or by neither"


def _nulls(scores: Sequence[NullScore], reports: Sequence[FunctionReport]) -> Iterator[str]:
    yield ""
    paying = [score for score in scores if score.pays]
    if not paying:
        yield f"null policies: none of {len({score.policy for score in scores})} is paid"
        return
    most = {report.name: max(report.values, default=0.0) for report in reports}
    for score in sorted(paying, key=lambda score: -score.best):
        share = ", as much as the best answer" if score.best >= most.get(score.function, 0.0) > 0 else ""
        yield (
            f"WARNING: {score.function} pays the null policy '{score.policy}' up to {score.best:.4g}"
            f" (mean {score.mean:.4g}){share}: '{score.sample}'"
        )
