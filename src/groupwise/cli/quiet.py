"""What the libraries below say for themselves is kept off the terminal; what groupwise warns of is shown.

Progress bars and log lines of transformers, datasets and the hub would tear the status line apart and say nothing that
a user could act on. Their errors still come through, and whoever wants more sets the variables below before the start.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings

from groupwise.runs.text import safe_text

SILENCE = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "KINETO_LOG_LEVEL": "99",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
"""Read by the libraries when they are imported, which is why this comes first."""

LIBRARIES = ("transformers", "datasets", "huggingface_hub", "peft", "torch", "accelerate", "bitsandbytes", "httpx")


class _OnTheTerminal(logging.Handler):
    """One line per warning, on standard error as it is now: while a status line moves, that leads above it."""

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(safe_text(record.getMessage()).split())
        sys.stderr.write(f"{record.levelname.lower()}: {text}\n")


def quiet_libraries() -> None:
    """Call it before anything heavy is imported; a second call changes nothing."""
    for name, value in SILENCE.items():
        os.environ.setdefault(name, value)
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(logging.ERROR)
    if not sys.warnoptions:
        # Libraries often warn in the name of their caller, so those laid at our door are theirs too: groupwise logs.
        ours_and_theirs = "|".join(("groupwise", *LIBRARIES))
        warnings.filterwarnings("ignore", module=rf"({ours_and_theirs})(\.|$)")
    log = logging.getLogger("groupwise")
    if not any(isinstance(handler, _OnTheTerminal) for handler in log.handlers):
        log.addHandler(_OnTheTerminal(logging.WARNING))
