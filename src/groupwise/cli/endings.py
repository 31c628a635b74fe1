"""How a command ends: the exit code, and what the user is told.

0     done
1     the user's mistake: one message, no traceback
2     a mistake of ours: the traceback, and a request to report it
75    a run that was asked to stop, by Ctrl-C or SIGTERM, and saved what there is: the same command goes on
130   Ctrl-C
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.text import Text

from groupwise.errors import FinishedError, GroupwiseError, Stopped
from groupwise.runs.text import safe_text

DONE, MISTAKE, BUG, AGAIN, INTERRUPTED = 0, 1, 2, 75, 130

OUT_OF_MEMORY = (
    "out of GPU memory: {}\nWays out, the cheapest first: lower learner.token_budget (same gradient, less memory), "
    "learner.logprob_chunk or engine.max_rows; set model.gradient_checkpointing = true; add [lora]; take a smaller "
    "model.id"
)


def ended(work: Callable[[], None]) -> int:
    """Do the work; say on standard error what went wrong; return the exit code."""
    try:
        work()
        sys.stdout.flush()
    except GroupwiseError as error:
        # Whoever repeats a command until it succeeds has succeeded when there is nothing left to do.
        return _told(str(error), DONE if isinstance(error, FinishedError) else MISTAKE)
    except KeyboardInterrupt as stop:
        in_good_order = isinstance(stop, Stopped)
        return _told(str(stop) if in_good_order else "interrupted", AGAIN if in_good_order else INTERRUPTED)
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit:  # rich, where it met the same broken pipe
        return MISTAKE
    except Exception as error:
        if _is_out_of_memory(error):
            return _told(OUT_OF_MEMORY.format(str(error).partition("\n")[0]), MISTAKE)
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


def _is_out_of_memory(error: Exception) -> bool:
    """Without importing torch: if it was not imported, it was not what ran out of memory."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
