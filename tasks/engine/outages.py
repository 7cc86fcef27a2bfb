"""The outages of the model servers of one process: detected, waited out, and the end of the run if they last."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence

from tasks.clients.model_http.model_server import RequestFailed
from tasks.domain.outage import NOT_ALLOWED, Outage, Tries, is_refusal, minutes_text
from tasks.domain.package import Health
from tasks.domain.paths import redact
from tasks.engine.instance import Instance
from tasks.engine.recovery import Recovery

WATCH_SECONDS = 1.0
"""Interval of checks whether servers answer their requests."""
LOOK_SECONDS = 1.0
"""For this long after a check whether the server denies all requests, 401 and 403 only count against their requests."""


class Outages:
    """The outages of ``instances``.

    ``on_change`` is called when an instance goes away, may get a request again, or answers. ``on_end`` gets the reason
    why the run cannot go on: every instance has been down for the longest outage allowed, or, if ``may_be_denied``, one
    answers that the run is not allowed.
    """

    def __init__(
        self,
        instances: Sequence[Instance],
        health: Health,
        *,
        may_be_denied: bool,
        on_change: Callable[[], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._instances = instances
        self._health = health
        self._may_be_denied = may_be_denied
        self._on_change = on_change
        self._on_end = on_end
        self._looking = asyncio.Lock()
        self._looked_at = -math.inf
        self._watching: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Start periodic checks whether the servers answer their requests."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            before = [one.outage.away for one in self._instances]
            await asyncio.sleep(WATCH_SECONDS)
            now = time.monotonic()
            quiet = [one for one in self._instances if one.in_flight and one.outage.is_quiet(one.busy_since, now)]
            await asyncio.gather(*map(self._look_at_quiet, quiet))
            if before != [one.outage.away for one in self._instances]:
                self._on_change()

    async def _look_at_quiet(self, instance: Instance) -> None:
        detail = await self._ask(instance)
        detail = detail and f"no answer, and GET {self._health.url}: {detail}"
        instance.outage.asked_while_quiet(detail, instance.busy_since, time.monotonic())

    async def refused(self, instance: Instance, tries: Tries, failed: RequestFailed, started: float) -> int:
        """Count a request, sent at ``started``, that an instance refused; how many of its attempts count against it.

        After a time-out this waits until the server has been checked: another attempt could take as long again.
        """
        outage = instance.outage
        counted = outage.refused(tries, failed.failure, failed.cause, started, time.monotonic())
        if outage.holds and (instance.recovery is None or instance.recovery.ended):
            instance.recovery = Recovery(
                outage,
                lambda: self._ask(instance),
                lambda: _ask_again(instance),
                self._on_change,
                lambda: self._goes_on(instance),
            )
        if failed.failure.kind != "timeout" or not outage.down or instance.recovery is None:
            return counted
        await instance.recovery.looked.wait()
        return outage.charged(tries)

    async def _ask(self, instance: Instance) -> str:
        if instance.running is not None:
            return await instance.running.ask()
        assert instance.server is not None
        return await instance.server.ask(self._health)

    async def failed(self, instance: Instance, tries: Tries, failed: RequestFailed) -> int:
        """Count a request whose failure is its own; how many of its attempts count against it."""
        tries.settle()
        tries.counted += 1
        status = failed.failure.status
        if not self._may_be_denied or status not in NOT_ALLOWED:
            instance.outage.answered(time.monotonic())
        elif instance.answered is not None:
            await self._look_whether_denied(instance, status)
        elif instance.outage.not_allowed(status, time.monotonic()):
            self._deny(instance, status)
        return tries.counted

    async def _look_whether_denied(self, instance: Instance, status: int) -> None:
        """End the run if a server now answers 401 or 403 to a request it answered before: a token may have expired."""
        async with self._looking:
            if time.monotonic() - self._looked_at < LOOK_SECONDS or instance.client is None or not instance.answered:
                return
            try:
                await instance.client.predict(instance.answered)
                instance.outage.answered(time.monotonic())
            except RequestFailed as again:
                if again.failure.status in NOT_ALLOWED:
                    self._deny(instance, status)
            self._looked_at = time.monotonic()

    def _deny(self, instance: Instance, status: int) -> None:
        self._on_end(f"the model server {redact(instance.url)} answers HTTP {status} ({NOT_ALLOWED[status]})")

    def _goes_on(self, instance: Instance) -> bool:
        """Whether to wait on for an instance whose outage lasts too long: yes, unless that is so for all of them."""
        now = time.monotonic()
        if not all(one.outage.passed(now) for one in self._instances if one.joined):
            return True
        outage = instance.outage
        self._on_end(
            f"the model server {redact(instance.url)} has answered no request for {minutes_text(outage.limit_seconds)} "
            f"({outage.cause})"
        )
        return False

    @property
    def probes(self) -> int:
        """How many requests in a row were refused so far, although all servers report that they are healthy."""
        least = 0
        for one in self._instances:  # asked for each row: most often the first one answers it
            if one.joined:
                if not (probes := one.outage.probes):
                    return 0
                least = min(least or probes, probes)
        return least

    @property
    def current(self) -> Outage | None:
        """The outage of the instance that went away last, while all instances that take part are away; else None."""
        left = [one.outage for one in self._instances if one.joined]
        if not left or not all(outage.away for outage in left):
            return None
        now = time.monotonic()
        return min(left, key=lambda outage: outage.lasts(now))

    async def close(self) -> None:
        """End all checks and recoveries."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await asyncio.gather(*(one.recovery.close() for one in self._instances if one.recovery is not None))


async def _ask_again(instance: Instance) -> bool:
    """Send an instance a request that it answered before, and note the result; False if there is no such request."""
    client, body, outage = instance.client, instance.answered, instance.outage
    if client is None or body is None:
        return False
    try:
        await client.predict(body)
    except RequestFailed as failed:
        if is_refusal(failed.failure):
            outage.refused_again(failed.failure, failed.cause, time.monotonic())
            return True
    outage.answered_again(time.monotonic())
    return True
