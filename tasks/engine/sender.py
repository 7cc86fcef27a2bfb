"""Sends requests: picks an instance, retries transient failures, and finds out which request kills a model server."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple

from tasks.clients.model_http.model_server import RequestFailed
from tasks.domain.answer import status_error
from tasks.domain.errors import AnswerError, ModelServerError
from tasks.domain.instance import MAX_DEATHS_PER_REQUEST
from tasks.domain.masking import Masker
from tasks.domain.outage import NOT_ALLOWED, Tries, is_refusal
from tasks.domain.request import Body
from tasks.domain.retry import decide
from tasks.engine.instance import Instance
from tasks.engine.instances import InstanceGroup
from tasks.engine.sent import Sent

OVERLOAD = (429, 503)
UNANSWERED = ("refused", "connection")
"""Failures after which the server may be found dead."""
MOST_KEPT_BYTES = 16 << 20
"""Largest request that is kept, to be sent again as a check when the model server is down."""
SMALL_BYTES = 64 << 10
"""A kept request above this size is replaced by a smaller one."""


class Answered(NamedTuple):
    """The model's answer, the seconds it took, and the requests in flight at its instance when it arrived.

    ``server`` is the process that answered: the number of the instance, and how often it had been started before.
    """

    data: bytes
    seconds: float
    in_flight: int
    server: tuple[int, int]


class _Again(NamedTuple):
    """What comes before the next attempt of a request: a pause, unless all requests wait anyway.

    A ``suspect`` is then sent alone to the same instance; if that ``died``, no other gets the place that becomes free.
    """

    suspect: bool
    died: bool = False
    pause_seconds: float | None = None


class Sender:
    """Sends requests to a group of instances, until ``stopped`` returns a reason.

    ``pause`` waits that many seconds before a retry; ``masker`` masks secrets in the model's answers.
    """

    def __init__(
        self,
        group: InstanceGroup,
        stopped: Callable[[], str] = str,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        masker: Callable[[], Masker] = Masker,
    ) -> None:
        self._group = group
        self._stopped = stopped
        self._pause = pause
        self._masker = masker

    async def send(self, body: Body, sent: Sent, *, urgent: bool = False) -> Answered:
        """The model's answer to one request; an ``urgent`` one is sent before others that wait.

        Raises AnswerError, which is final: retries, if any were possible, are exhausted.
        """
        group, tries = self._group, Tries()
        suspected: Instance | None = None
        while True:
            alone, suspected = suspected, None
            instance = await self._place(alone, urgent=urgent, again=tries.made > 0)
            if instance is None:
                continue
            try:
                outcome = await self._attempt(body, sent, tries, instance, alone=alone is not None)
                if isinstance(outcome, _Again) and outcome.died:
                    group.suspect(instance)
            finally:
                group.release(instance, alone=alone is not None)
                if alone is not None:
                    group.clear_suspect(alone)
            if isinstance(outcome, Answered):
                return outcome
            if outcome.suspect:
                suspected = instance
                if not outcome.died:
                    group.suspect(instance)
            if outcome.pause_seconds is not None:
                await self._pause(outcome.pause_seconds)

    async def _place(self, suspected: Instance | None, *, urgent: bool, again: bool) -> Instance | None:
        """A place for a request, for a suspect at its own instance; None if that takes it no more, but another one may.

        Raises AnswerError if the run is stopped, or no instance is left.
        """
        group = self._group
        try:
            if suspected is not None:
                return await group.acquire_alone(suspected)
            return await group.acquire(urgent=urgent, again=again)
        except BaseException as error:
            if suspected is not None:
                group.clear_suspect(suspected)
            if not isinstance(error, ModelServerError):
                raise
            self._raise_if_stopped()
            if suspected is not None and not group.lost:
                return None
            raise AnswerError(f"No instance is left: {error}".split("\n", 1)[0]) from None

    def _raise_if_stopped(self) -> None:
        if message := self._stopped():
            raise AnswerError(message) from None

    async def _attempt(
        self, body: Body, sent: Sent, tries: Tries, instance: Instance, *, alone: bool
    ) -> Answered | _Again:
        """Send a request once, a suspect ``alone``. Raises AnswerError if it is not sent again after a failure."""
        self._raise_if_stopped()
        generation = instance.generation
        client = instance.client
        if client is None:  # the instance died after it was chosen
            return _Again(suspect=alone, died=alone)
        started = time.monotonic()
        doubtful = instance.outage.since is not None and not instance.outage.down  # it may be gone already
        try:
            answer = await client.predict(body, sent.room)
        except RequestFailed as failed:
            # Its traceback holds this frame, and so the body: a cycle that only the garbage collector frees.
            error = failed.with_traceback(None)
            error.__context__ = None
        else:
            ended = time.monotonic()
            sent.tally.request(ended - started)
            sent.answered(answer.stretch)
            instance.limit.answered(started, ended, instance.in_flight)
            instance.deaths.answered()
            instance.outage.answered(ended, ended - started)
            kept = instance.answered
            if body.size <= MOST_KEPT_BYTES if kept is None else body.size < kept.size > SMALL_BYTES:
                instance.answered = body
            return Answered(answer.data, ended - started, instance.in_flight, (instance.number, generation))
        sent.tally.requests += 1
        tries.made += 1
        failure = error.failure
        if failure.kind in UNANSWERED and instance.server is not None and await instance.died_since(generation):
            tries.deaths += 1
            if tries.deaths >= MAX_DEATHS_PER_REQUEST:
                raise AnswerError(f"model server died {tries.deaths} times on this item")
            sent.tally.retries += 1
            return _Again(suspect=True, died=True)
        if failure.kind == "timeout" or failure.status in OVERLOAD:
            instance.limit.overloaded(started, time.monotonic())
        if is_refusal(failure):
            counted = await self._group.outages.refused(instance, tries, error, started)
        else:
            counted = await self._group.outages.failed(instance, tries, error)
        if error.answer is not None:
            instance.deaths.answered()
            sent.answered(error.answer.stretch)
        again = self._decide(error, counted, tries, instance, to_blame=alone and not doubtful)
        sent.tally.retries += 1
        return again

    def _decide(
        self, error: RequestFailed, counted: int, tries: Tries, instance: Instance, *, to_blame: bool
    ) -> _Again:
        """How a request is sent again of whose attempts so many are ``counted``. Raises AnswerError if it is not.

        ``to_blame``: it was alone at a server that was there, so if the connection broke, that may be its fault.
        """
        if error.failure.kind == "unusable":
            raise AnswerError(error.cause)
        waits = instance.outage.holds  # all requests wait, for as long as the server asked
        failure = replace(error.failure, retry_after_seconds=None) if waits else error.failure
        decision = decide(failure, counted, pending=tries.pending, jitter=random.random())
        if decision.again or failure.status in NOT_ALLOWED:
            self._raise_if_stopped()
        if not decision.again:
            if (answer := error.answer) is not None:
                raise status_error(answer.status, answer.data, tries.made, self._masker(), answer.location)
            raise AnswerError(f"The model did not answer: {error.cause} (tried {tries.made} times).")
        # This request may be the one that kills the server.
        suspect = bool(tries.breaks) and failure.kind in (*UNANSWERED, "timeout")
        if suspect and to_blame and failure.kind != "refused" and tries.breaks >= MAX_DEATHS_PER_REQUEST - 1:
            raise AnswerError(f"The model server went away {tries.breaks + 1} times on this item.")
        return _Again(suspect, pause_seconds=None if waits else decision.delay_seconds)
