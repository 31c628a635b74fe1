"""The callbacks of a run: transformers' own flow, those of the trackers, the script's, and what shows progress."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from transformers import DefaultFlowCallback, PrinterCallback, ProgressCallback, TrainerCallback
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from transformers.trainer_callback import CallbackHandler

from groupwise.compat.config import SharedConfig
from groupwise.errors import RecipeError

Callback = TrainerCallback | type[TrainerCallback]


def handler_of(args: SharedConfig, callbacks: Sequence[Callback] | None) -> CallbackHandler:
    """In the order that transformers calls them in."""
    report_to = cast("list[str]", args.report_to)
    try:
        trackers = [made() for made in cast("list[Any]", get_reporting_integration_callbacks(report_to))]
    except (RuntimeError, ImportError, ValueError) as error:
        raise RecipeError(
            f"report_to = {report_to}: {error}. Install what it needs, or set report_to='none': the run folder has "
            "every metric in any case"
        ) from error
    shown = PrinterCallback if args.disable_tqdm else ProgressCallback
    return CallbackHandler([DefaultFlowCallback, *trackers, *(callbacks or ()), shown], None, None, None, None)
