"""Where the command begins: before anything is imported that takes time.

Until the command line is read, and after the command has ended, Ctrl-C ends the process at once and without a word, as
it does for every program that is not written in Python; in between, the command says how it was interrupted.
"""

from __future__ import annotations

import signal
import sys


def start() -> int:
    """Run the command of this process and return its exit code."""
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where it is ignored (nohup, `&`)
    if heard:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from groupwise.cli.main import main

    if heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return main()
    except KeyboardInterrupt:  # between two lines of ours
        sys.stderr.write("interrupted\n")
        return 130
    finally:
        if heard:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
