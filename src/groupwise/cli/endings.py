"""How a command ends: the exit code, and what the user is told.

0     done
1     the user's mistake: one message, no traceback; or a run that an alarm has paused (alarms.action)
2     a mistake of ours: the traceback, and a request to report it
75    a run that was asked to stop, by Ctrl-C or SIGTERM, and saved what there is: the same command goes on
130   Ctrl-C
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.text import Text

from groupwise.errors import FinishedError, GroupwiseError, Paused, Stopped
from groupwise.runs.text import safe_text

DONE, MISTAKE, BUG, AGAIN, INTERRUPTED = 0, 1, 2, 75, 130

OUT_OF_MEMORY = (
    "out of GPU memory: {}\nWays out, the cheapest first: lower learner.token_budget (same gradient, less memory), "
    "learner.logprob_chunk or engine.max_rows; set model.gradient_checkpointing = true; add [lora]; take a smaller "
    "model.id"
)

NO_MEMORY = (
    "out of memory: this machine has not what was asked for. Ways out: lower the counts that you gave (tokens, rows, "
    "completions, problems), take a smaller model, or a machine with more"
)
CURES = {
    errno.ENAMETOOLONG: "A name may have 255 bytes, a path 4,096: choose a shorter one",
    errno.ENOSPC: "Free some space, or choose another folder",
    errno.EDQUOT: "Free some space, or choose another folder",
    errno.EROFS: "Choose a folder that can be written to",
    errno.EISDIR: "A folder stands where a file belongs: remove or rename it",
    errno.ENOTDIR: "A file stands where a folder belongs: remove or rename it",
    errno.ELOOP: "A link leads back to itself: remove it",
    errno.EACCES: "Change its owner or its rights, or choose another folder",
    errno.EPERM: "Change its owner or its rights, or choose another folder",
    errno.EIO: "This disk is broken or gone: choose another folder",
    errno.EMFILE: "Raise the limit of open files (ulimit -n)",
    errno.ENFILE: "Too many files are open on this machine: close other programs",
}
"""What a disk or a system refuses, and what helps."""
_SHOWN = 60


def ended(work: Callable[[], None]) -> int:
    """Do the work; say on standard error what went wrong; return the exit code."""
    try:
        work()
        sys.stdout.flush()
    except GroupwiseError as error:
        # Whoever repeats a command until it succeeds has succeeded when there is nothing left to do.
        return _told(str(error), DONE if isinstance(error, FinishedError) else MISTAKE)
    except KeyboardInterrupt as stop:
        if isinstance(stop, Paused):  # not 75: whoever repeats the command on 75 would undo the pause
            return _told(str(stop), MISTAKE)
        in_good_order = isinstance(stop, Stopped)
        return _told(str(stop) if in_good_order else "interrupted", AGAIN if in_good_order else INTERRUPTED)
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit:  # rich, where it met the same broken pipe
        return MISTAKE
    except Exception as error:
        if words := _of_the_machine(error):
            _spare_full_output(error)
            return _told(words, MISTAKE)
        traceback.print_exc()
        return _told("This is a mistake of groupwise, not yours. Please report it with the lines above.", BUG)
    return DONE


def _told(message: str, code: int) -> int:
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    # Away from a terminal a line stays one line, however long: that is what grep expects.
    console.print(Text(safe_text(message)), soft_wrap=not console.is_terminal)
    return code


def _reader_gone() -> int:
    """Whoever read our output has enough (`| head`). What is still buffered goes nowhere, without a complaint."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return MISTAKE


def _of_the_machine(error: Exception) -> str:
    """What the machine could not do, in words; empty for what is no matter of the machine."""
    if _is_out_of_gpu_memory(error):
        return OUT_OF_MEMORY.format(str(error).partition("\n")[0])
    if isinstance(error, MemoryError):
        return NO_MEMORY
    if isinstance(error, OSError) and (cure := CURES.get(error.errno or 0)):
        where = "standard output" if error.filename is None else shortened(str(error.filename))
        return f"{where}: {error.strerror}. {cure}"
    return ""


def is_text(word: str) -> bool:
    """Whether a word of the command line is UTF-8: what is not comes as half characters."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def refuse_word(word: str) -> None:
    """Say that it is not."""
    raise GroupwiseError(
        f"{safe_text(shortened(word))!r} on the command line is no UTF-8, and what a run writes down is: rename the "
        "file or folder, or mend the setting"
    )


def shortened(name: str) -> str:
    """What is too long to be read, with its middle left out."""
    return name if len(name) <= 2 * _SHOWN else f"{name[:_SHOWN]}...{name[-_SHOWN:]} ({len(name):,} characters)"


def _spare_full_output(error: Exception) -> None:
    """What still waits for a full disk behind standard output would fail again when Python ends."""
    if isinstance(error, OSError) and error.filename is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_out_of_gpu_memory(error: Exception) -> bool:
    """Without importing torch: if it was not imported, it was not what ran out of memory."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
