"""When the memory does not suffice for sampling: fewer completions at a time, the same completions.

limit = RowLimit(256)
limit.halve(in_flight=200)       True: from now on 100 at a time; it is said once
limit.halve(in_flight=1)         False: there are no fewer
"""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


class RowLimit:
    """How many completions are decoded at once; halved whenever the memory did not suffice, for the rest of the run."""

    def __init__(self, rows: int, say: Callable[[str], None] = log.warning) -> None:
        self.rows = rows
        self._asked = rows
        self.say = say
        """Who hears that it was halved."""

    def halve(self, in_flight: int) -> bool:
        """Half of those that were tried; whether there is any half of them."""
        tried = min(self.rows, in_flight)
        if tried <= 1:
            return False
        self.rows = tried // 2
        self.say(
            f"out of memory while sampling {tried:,} completions at once: they are sampled again, {self.rows:,} at a "
            f"time. To begin with that: engine.max_rows = {self.rows}"
        )
        return True

    def state(self) -> int | None:
        """What `restore` takes: None as long as all that were asked for have room."""
        return self.rows if self.rows < self._asked else None

    def restore(self, state: int | None) -> None:
        """Go on with as few."""
        self.rows = min(self._asked, state or self._asked)
