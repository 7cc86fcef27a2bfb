"""What a run does about outages of its model servers: it shows them, and ends when one has lasted too long."""

from __future__ import annotations

import time
from collections.abc import Callable

from tasks.clients import clock
from tasks.domain.errors import ModelServerError
from tasks.domain.outage import minutes_text
from tasks.domain.stop import Stop
from tasks.engine.ending import Ending
from tasks.engine.instances import InstanceGroup
from tasks.engine.progress import Progress
from tasks.engine.server_output import Show


class OutageWatch:
    """Follows the health of a run's instances; ``shared``: other processes have instances of the run, too."""

    def __init__(self, ending: Ending, progress: Progress, show: Show, longest_seconds: float, *, shared: bool) -> None:
        self.away = ""
        """Why this process no longer waits for its model server; empty while it does."""
        self.when_probing: set[Callable[[], None]] = set()
        """Called when a healthy server accepts no request, so that items from elsewhere in the input are begun."""
        self._ending = ending
        self._progress = progress
        self._show = show
        self._minutes = minutes_text(longest_seconds)
        self._shared = shared

    def absent(self, cause: str) -> None:
        """Report that no model server is reachable at the start of the run."""
        if not self._progress.outage_since:
            self._progress.outage_since = clock.now()
            self._show(f"No model server is there yet ({cause}); the run waits for it, for up to {self._minutes}.")
        self._progress.outage = cause

    def changed(self, group: InstanceGroup) -> None:
        """Report that instances have died, gone away or become healthy."""
        if group.outages.probes:
            for begin in [*self.when_probing]:
                begin()
        progress = self._progress
        progress.sick_instances = group.sick
        if self._ending.stopped:  # the run no longer waits for anything
            progress.outage, progress.outage_since = "", None
            return
        outage = group.outages.current
        if (outage is not None) == (progress.outage_since is not None):
            return
        now = clock.now()
        if outage is not None:
            progress.outage, progress.outage_since = outage.cause, now - outage.lasts(time.monotonic())
            self._show(f"The model server takes no request ({outage.cause}); the run waits for it.")
        else:
            seconds = now - (progress.outage_since or now)
            progress.outage, progress.outage_since = "", None
            self._show(f"The model server takes requests again, after {seconds:.0f} s.")

    def never_there(self, group: InstanceGroup, error: ModelServerError) -> None:
        """End the wait for servers that run already: none was reachable for the longest outage allowed."""
        self.cannot_go_on(group, f"no model server was there for {self._minutes}: {str(error).removesuffix('.')}")

    def cannot_go_on(self, group: InstanceGroup, cause: str) -> None:
        """Stop the run, since no model server accepts requests; only give up here if other processes have instances."""
        if self._shared:
            self.away = cause
            group.give_up(ModelServerError(cause))
        else:
            self._ending.stop(Stop(reason="outage", cause=cause, resumable=True))
            self.changed(group)
