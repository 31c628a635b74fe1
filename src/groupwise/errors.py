"""Every error that groupwise raises on purpose.

    GroupwiseError
    ├── RecipeError    (ValueError)    the recipe, an override or a setting: what, where, and the cure
    ├── ModelError     (RuntimeError)  a model that cannot be found, loaded, trained or trusted
    ├── TaskError      (ValueError)    problems: a missing column, an empty split, a prompt that is too long
    ├── RewardError    (ValueError)    a reward function that raised or returned what no reward is
    ├── EngineError    (RuntimeError)  an engine that cannot sample what it was asked for
    ├── LearnerError   (RuntimeError)  an update that must not happen; NonFiniteError of the learner: a number in it
    ├── DeadlineError  (TimeoutError)  a wait that took longer than the recipe allows
    └── RunError       (OSError)       the run folder: taken, unwritable, not a run
        └── FinishedError               ... or finished, so that there is nothing left to do

    Stopped            (KeyboardInterrupt)  a run that was asked to stop, and has saved what there is; no mistake
    └── Paused                              ... by an alarm (alarms.action), so that somebody looks

The rule: a user's mistake raises one of these and ends as one message and exit code 1; a mistake of ours is an
`AssertionError` or whatever Python raises, keeps its traceback and exits with 2. To add one: subclass, add the stdlib
error that callers would expect, draw it above.
"""

from __future__ import annotations


class GroupwiseError(Exception):
    """Base of all. Its message says what, where, why and how to mend it."""


class RecipeError(GroupwiseError, ValueError):
    """A recipe that cannot be used. One error carries every problem that was found."""


class ModelError(GroupwiseError, RuntimeError):
    """A model that cannot be found, loaded, trained or trusted."""


class TaskError(GroupwiseError, ValueError):
    """Problems that cannot be made from the data."""


class RewardError(GroupwiseError, ValueError):
    """A reward function that raised, or returned what no reward is. Names the function and the row."""


class EngineError(GroupwiseError, RuntimeError):
    """An engine that cannot sample what it was asked for."""


class LearnerError(GroupwiseError, RuntimeError):
    """An update that must not be made."""


class DeadlineError(GroupwiseError, TimeoutError):
    """A wait that took longer than the recipe's `deadlines` allow. Names whom was waited for."""


class RunError(GroupwiseError, OSError):
    """A run folder that is taken, unwritable or not one of ours."""


class FinishedError(RunError):
    """A run that has nothing left to do."""


class Stopped(KeyboardInterrupt):
    """A run that was asked to stop (Ctrl-C, SIGTERM, SIGHUP) and did so in good order; the same command goes on."""


class Paused(Stopped):
    """A run that an alarm has stopped in good order; the same command goes on, once somebody has looked."""
