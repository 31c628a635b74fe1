"""The status line, and how it reaches a terminal, a file, and what is neither."""

import io
import math
import os
import subprocess
import sys
import time

import pytest
from rich.console import Console

from groupwise.cli.progress import TerminalReporter
from groupwise.cli.status_line import Operation, duration, status_line
from groupwise.training.reporter import QuietReporter, Reporter

METRICS = {
    "reward": 0.3125,
    "reward_std": 0.456,
    "length": 9.4,
    "kl": 0.0021,
    "zero_signal": 0.22,
    "tokens_per_second": 1234.0,
    "truncated": 0.0,
    "entropy": 1.5,
}


class ToyClock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def an_operation(steps=40, total=200, **changed):
    operation = Operation(total, "training", begun=0.0)
    for step in range(steps):
        operation.add({**METRICS, "reward": step / steps, **changed}, now=step + 1.0)
    return operation


def test_the_whole_line():
    operation = an_operation()
    assert status_line(operation, 40.0).plain == (
        "training  40/200  reward 0.97 ±0.46  len 9  kl 0.002  dead groups 22%  1.2k tok/s  2 min 40 s left"
    )
    # The rewards of the last 16 steps are 24/40 to 39/40 on a scale from 0 to 39/40: 4.9 eighths to 8.
    assert status_line(operation, 40.0, width=120).plain == (
        "training  40/200  reward 0.97 ±0.46  ▅▅▅▆▆▆▆▆▇▇▇▇▇███"
        "  len 9  kl 0.002  dead groups 22%  1.2k tok/s  2 min 40 s left"
    )


@pytest.mark.parametrize("width", range(16, 130))
def test_the_line_fits_and_keeps_what_matters_most(width):
    line = status_line(an_operation(truncated=0.1), 40.0, width=width)
    assert line.cell_len <= max(width, len("training  40/200"))
    assert line.plain.startswith("training  40/200")
    assert ("reward 0.97" in line.plain) == (width >= 29)
    assert ("left" in line.plain) == (width >= 46)


def test_without_unicode_the_line_is_ascii():
    assert status_line(an_operation(), 40.0, width=120, ascii_only=True).plain.isascii()


def test_what_was_not_measured_is_not_shown():
    operation = Operation(10, "warm start", begun=0.0)
    assert status_line(operation, 3.0).plain == "warm start  0/10  3 s"
    operation.add({"loss": 1.2345}, 5.0)
    assert status_line(operation, 5.0).plain == "warm start  1/10  loss 1.23  45 s left"
    operation.add({"reward": math.nan, "truncated": 0.125}, 6.0)
    assert status_line(operation, 6.0, width=80).plain == "warm start  2/10  reward nan  cut off 12%  24 s left"


def test_time_left_follows_the_pace_of_the_latest_steps_and_counts_down():
    operation = Operation(30, "training", begun=0.0)
    for step in range(5):
        operation.add({}, now=100.0 * (step + 1))
    for step in range(20):
        operation.add({}, now=500.0 + 2 * (step + 1))
    assert operation.seconds_left(540.0) == pytest.approx(10.0)
    assert operation.seconds_left(543.0) == pytest.approx(7.0)
    assert operation.seconds_left(999.0) == 0.0


def test_how_it_ended():
    assert status_line(an_operation(5, 5), 134.0, over=True).plain.endswith("2 min 14 s")
    assert status_line(an_operation(4, 5), 134.0, over=True).plain.endswith("stopped after 2 min 14 s")


def test_durations():
    assert [duration(seconds) for seconds in (0.4, 59.4, 59.6, 134, 3599, 7620)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "2 min 14 s",
        "59 min 59 s",
        "2 h 07 min",
    ]


def lines_of(reporter_does, encoding="utf-8", every=30.0):
    buffer, clock = io.BytesIO(), ToyClock()
    file = io.TextIOWrapper(buffer, encoding=encoding, errors="backslashreplace", write_through=True)
    with TerminalReporter(Console(file=file, width=40), every_seconds=every, clock=clock) as reporter:
        reporter_does(reporter, clock)
    return buffer.getvalue().decode(encoding).splitlines()


def test_in_a_file_there_is_a_line_at_the_first_step_every_30_seconds_and_at_the_end():
    def ten_slow_steps(reporter, clock):
        reporter.started(10, "training")
        for _ in range(10):
            clock.now += 11
            reporter.step(METRICS)
        reporter.finished()

    lines = lines_of(ten_slow_steps)
    assert [line.split("  reward")[0] for line in lines] == [
        "training  1/10",
        "training  4/10",
        "training  7/10",
        "training 10/10",
    ]
    assert all("tok/s" in line for line in lines), "a line in a file is never cut"


def test_in_a_file_results_and_messages_stand_alone():
    def evaluation_inside_training(reporter, clock):
        reporter.started(2, "training")
        reporter.step(METRICS)
        reporter.started(5, "evaluating")
        reporter.step({})
        reporter.finished()
        reporter.evaluated("step 1\x1b[2J", "0.750 [0.301, 0.954]")
        reporter.message("a very long message that is longer than the forty columns of this console\x07")
        reporter.finished()

    lines = lines_of(evaluation_inside_training)
    assert lines[1:3] == [
        "eval step 1  0.750 [0.301, 0.954]",
        "a very long message that is longer than the forty columns of this console",
    ]
    assert lines[3].startswith("training 1/2")
    assert lines[3].endswith("stopped after 0 s")
    assert len(lines) == 4


def test_any_encoding_will_do():
    def in_chinese(reporter, clock):
        reporter.started(1, "训练")
        reporter.step(METRICS)
        reporter.message("你好 \ud800")
        reporter.finished()

    assert lines_of(in_chinese, "ascii")[0] == r"\u4f60\u597d \ud800"
    assert "训练 1/1" in lines_of(in_chinese)[1]


def test_forced_colour_is_no_terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")

    def one_step(reporter, clock):
        reporter.started(2, "training")
        reporter.step(METRICS)
        reporter.finished()

    assert "\x1b[2K" not in "".join(lines_of(one_step))


def test_what_is_shown_while_it_moves():
    file, clock = io.StringIO(), ToyClock()
    console = Console(file=file, width=70, force_terminal=True, color_system=None)
    reporter = TerminalReporter(console, live=True, clock=clock)
    with pytest.raises(ZeroDivisionError), reporter:
        reporter.started(200, "training")
        clock.now += 2
        reporter.step(METRICS)
        reporter.evaluated("step 1", "0.750")
        reporter.message("\x1b]0;evil\x07kind")
        deadline = time.monotonic() + 20
        while "1/200" not in file.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)  # until the line is drawn again
        raise ZeroDivisionError
    shown = file.getvalue()
    assert "eval step 1  0.750" in shown
    assert "training   1/200  reward 0.31 ±0.46" in shown
    assert "evil" not in shown
    assert "\x07" not in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor must be back"


def test_a_real_terminal_gets_a_moving_line(tmp_path):
    pty = pytest.importorskip("pty")
    script = (
        "from groupwise.cli.progress import TerminalReporter\n"
        "import time\n"
        "with TerminalReporter() as reporter:\n"
        "    reporter.started(2, 'training'); time.sleep(0.3)\n"
        "    reporter.step({'reward': 0.5}); reporter.message('said'); reporter.step({'reward': 0.5})\n"
        "    reporter.finished()\n"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "60", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen([sys.executable, "-c", script], stdout=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:
        pass  # the other end was closed
    os.close(ours)
    assert process.wait() == 0
    text = shown.decode()
    assert "training 0/2" in text
    assert "\x1b[2K" in text, "no line was rewritten"
    assert "training 2/2" in text.splitlines()[-1]
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_both_reporters_are_reporters():
    reporters: list[Reporter] = [QuietReporter(), TerminalReporter(Console(file=io.StringIO()), live=False)]
    for reporter in reporters:
        reporter.started(1, "training")
        reporter.step(METRICS)
        reporter.evaluated("after", "1.000")
        reporter.message("done")
        reporter.finished()
