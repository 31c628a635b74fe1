"""One line that says how a long operation is doing, as wide as there is room for.

    training  40/200  reward 0.31 ±0.46  ▁▂▃▄  len 9  kl 0.002  dead groups 22%  1.2k tok/s  14 s left

Where there is less room, parts go one by one, the least important first; how far it is and how long it takes stay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from rich.text import Text

from groupwise.cli.pictures import sparkline

_WIDE, _SPARK, _SHORT_SPARK = 100, 16, 8
_PACE_OVER = 20


@dataclass(slots=True)
class Operation:
    """A long operation: how far it is, since when, and what its steps measured."""

    total: int
    description: str
    begun: float
    before: int = 0
    """Steps that were done before it began: a run that was taken up."""
    ends: list[float] = field(default_factory=list[float])
    last: Mapping[str, float] = field(default_factory=dict[str, float])
    rewards: list[float] = field(default_factory=list[float])

    @property
    def done(self) -> int:
        """Steps that are done."""
        return self.before + len(self.ends)

    def add(self, metrics: Mapping[str, float], now: float) -> None:
        """Take in one step."""
        self.ends.append(now)
        self.last = dict(metrics)
        if "reward" in metrics:
            self.rewards.append(metrics["reward"])

    def seconds_left(self, now: float) -> float:
        """From the pace of the latest steps, so that completions that grow longer soon count."""
        times = [self.begun, *self.ends][-_PACE_OVER - 1 :]
        pace = (times[-1] - times[0]) / (len(times) - 1)
        return max(0.0, pace * (self.total - self.done) - (now - times[-1]))


class _Part(NamedTuple):
    """A piece of the line; the one with the greatest rank goes first when there is no room."""

    rank: int
    text: Text
    gap: str = "  "


def status_line(
    operation: Operation, now: float, *, width: int | None = None, ascii_only: bool = False, over: bool = False
) -> Text:
    """The line for this moment. Without `width` it is as long as it gets, and has no sparkline (it is for a log)."""
    parts = [
        _Part(0, Text(_head(operation), style="bold")),
        *_reward(operation, ascii_only, _spark_length(width)),
        *_measured(operation.last),
        _Part(2, Text(_timing(operation, now, over), style="dim")),
    ]
    while width is not None and len(parts) > 1 and _joined(parts).cell_len > width:
        parts.remove(max(parts, key=lambda part: part.rank))
    return _joined(parts)


def duration(seconds: float) -> str:
    """`14 s`, `2 min 14 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _joined(parts: list[_Part]) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    for part in parts:
        line.append(part.gap if line else "").append_text(part.text)
    return line


def _spark_length(width: int | None) -> int:
    return 0 if width is None else _SPARK if width >= _WIDE else _SHORT_SPARK


def _head(operation: Operation) -> str:
    total = str(operation.total)
    return f"{operation.description} {operation.done:>{len(total)}}/{total}"


def _reward(operation: Operation, ascii_only: bool, spark: int) -> list[_Part]:
    """The reward with its spread and its history, or the loss of a training without rewards."""
    last = operation.last
    if "reward" not in last:
        return [_named(1, "loss", _short(last["loss"]))] if "loss" in last else []
    parts = [_named(1, "reward", _reward_text(last["reward"]))]
    if "reward_std" in last:
        parts.append(_Part(3, Text(f"{'+-' if ascii_only else '±'}{_reward_text(last['reward_std'])}"), gap=" "))
    finite = [reward for reward in operation.rewards if math.isfinite(reward)]
    if spark and finite:
        picture = sparkline(operation.rewards[-spark:], min(finite), max(finite), ascii_only)
        parts.append(_Part(4, Text(picture, style="green")))
    return parts


def _measured(last: Mapping[str, float]) -> list[_Part]:
    parts: list[_Part] = []
    if "length" in last:
        parts.append(_named(6, "len", f"{last['length']:.0f}"))
    if "kl" in last:
        parts.append(_named(7, "kl", _short(last["kl"])))
    if "zero_signal" in last:
        parts.append(_named(5, "dead groups", f"{last['zero_signal']:.0%}"))
    if last.get("truncated"):
        parts.append(_named(8, "cut off", f"{last['truncated']:.0%}"))
    if "tokens_per_second" in last:
        parts.append(_Part(9, Text(f"{_thousands(last['tokens_per_second'])} tok/s")))
    return parts


def _timing(operation: Operation, now: float, over: bool) -> str:
    since = duration(now - operation.begun)
    if over:
        return since if operation.done >= operation.total else f"stopped after {since}"
    if not operation.ends:
        return since
    return f"{duration(operation.seconds_left(now))} left"


def _named(rank: int, name: str, value: str) -> _Part:
    return _Part(rank, Text.assemble((f"{name} ", "dim"), value))


def _reward_text(value: float) -> str:
    """Always two decimals, so that the line does not jump; rewards beyond 1000 need none."""
    return f"{value:.2f}" if abs(value) < 1000 else f"{value:.0f}"


def _short(value: float) -> str:
    """About three digits: `0.31`, `12.4`, `0.002`, `3.1e-05`."""
    size = abs(value)
    if not math.isfinite(value) or size >= 100 or size == 0:
        return f"{value:.0f}"
    if size < 0.0005:
        return f"{value:.1e}"
    return f"{value:.3f}" if size < 0.1 else f"{value:.2f}" if size < 10 else f"{value:.1f}"


def _thousands(value: float) -> str:
    """`640`, `1.2k`, `3.4M`."""
    if value >= 999_950:
        return f"{value / 1e6:.1f}M"
    return f"{value / 1e3:.1f}k" if value >= 1000 else f"{value:.0f}"
