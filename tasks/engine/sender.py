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
        group = self._group
        tally = sent.tally
        deaths = 0
        tries = Tries()
        suspected: Instance | None = None
        while True:
            try:
                instance = await (
                    group.acquire(urgent=urgent, again=tries.made > 0)
                    if suspected is None
                    else group.acquire_alone(suspected)
                )
            except BaseException as error:
                if suspected is not None:
                    group.clear_suspect(suspected)
                if not isinstance(error, ModelServerError):
                    raise
                if message := self._stopped():
                    raise AnswerError(message) from None
                if suspected is not None and not group.lost:  # another instance may take it
                    suspected = None
                    continue
                raise AnswerError(f"No instance is left: {error}".split("\n", 1)[0]) from None
            was_suspected, suspected = suspected, None
            try:
                if message := self._stopped():
                    raise AnswerError(message)
                generation = instance.generation
                client = instance.client
                if client is None:  # the instance died after it was chosen
                    if was_suspected is not None:
                        suspected = was_suspected
                        group.suspect(suspected)
                    continue
                started = time.monotonic()
                doubtful = instance.outage.since is not None and not instance.outage.down  # it may be gone already
                try:
                    answer = await client.predict(body, sent.room)
                except RequestFailed as failed:
                    # Its traceback holds this frame, and so the body: a cycle that only the garbage collector frees.
                    failure = failed.with_traceback(None)
                    failure.__context__ = None
                else:
                    ended = time.monotonic()
                    tally.request(ended - started)
                    sent.answered(answer.stretch)
                    instance.limit.answered(started, ended, instance.in_flight)
                    instance.deaths.answered()
                    instance.outage.answered(ended, ended - started)
                    kept = instance.answered
                    if body.size <= MOST_KEPT_BYTES if kept is None else body.size < kept.size > SMALL_BYTES:
                        instance.answered = body
                    return Answered(answer.data, ended - started, instance.in_flight, (instance.number, generation))
                tally.requests += 1
                tries.made += 1
                unanswered = failure.failure.kind in ("refused", "connection")
                if unanswered and instance.server is not None and await instance.died_since(generation):
                    deaths += 1
                    if deaths >= MAX_DEATHS_PER_REQUEST:
                        raise AnswerError(f"model server died {deaths} times on this item")
                    tally.retries += 1
                    suspected = instance
                    group.suspect(instance)
                    continue
                if failure.failure.kind == "timeout" or failure.failure.status in OVERLOAD:
                    instance.limit.overloaded(started, time.monotonic())
                if is_refusal(failure.failure):
                    counted = await group.outages.refused(instance, tries, failure, started)
                else:
                    counted = await group.outages.failed(instance, tries, failure)
                if failure.answer is not None:
                    instance.deaths.answered()
                    sent.answered(failure.answer.stretch)
            finally:
                group.release(instance, alone=was_suspected is not None)
                if was_suspected is not None:
                    group.clear_suspect(was_suspected)
            if failure.failure.kind == "unusable":
                raise AnswerError(failure.cause)
            waits = instance.outage.holds  # all requests wait, for as long as the server asked
            refusal = replace(failure.failure, retry_after_seconds=None) if waits else failure.failure
            decision = decide(refusal, counted, pending=tries.pending, jitter=random.random())
            if (decision.again or refusal.status in NOT_ALLOWED) and (message := self._stopped()):
                raise AnswerError(message)
            if not decision.again:
                if failure.answer is not None:
                    raise status_error(
                        failure.answer.status, failure.answer.data, tries.made, self._masker(), failure.answer.location
                    )
                raise AnswerError(f"The model did not answer: {failure.cause} (tried {tries.made} times).")
            if tries.breaks and (
                unanswered or failure.failure.kind == "timeout"
            ):  # this request may be the one that kills the server
                broke = was_suspected is not None and not doubtful and failure.failure.kind != "refused"
                if broke and tries.breaks >= MAX_DEATHS_PER_REQUEST - 1:
                    raise AnswerError(f"The model server went away {tries.breaks + 1} times on this item.")
                suspected = instance
                group.suspect(instance)
            tally.retries += 1
            if not waits:
                await self._pause(decision.delay_seconds)
