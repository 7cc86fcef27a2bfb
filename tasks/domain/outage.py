"""Whether a model server is away or overloaded, so that its refusals are no item's fault: decisions without I/O.

While a server answers some requests and refuses others, a refusal counts against the request. While it refuses
everything, refusals do not count: the server is down, and its health is checked at growing intervals. Once it is
healthy, it is sent a request that it has answered before. If it answers that one again, the refused requests are to
blame; if not, it is still down. A server that has not answered any request yet is sent the waiting ones, one at a time.
Times are seconds of a monotonic clock.
"""

from __future__ import annotations

import math

from tasks.domain.retry import MAX_RETRY_AFTER_SECONDS, Failure

REFUSALS = frozenset({429, 502, 503, 504})
"""Statuses of a server, or of a gateway in front of it, that temporarily takes no requests (RFC 9110, RFC 6585)."""
NOT_ALLOWED = {401: "no valid credentials: see `headers`", 403: "no permission: see `headers`"}
"""The meaning of a status for the caller."""
DOWN_SECONDS = 1.0
"""A server that has refused everything for this long is down."""
LONG_REST_SECONDS = 5.0
"""A server is also down if it asks for a rest of this length and has answered nothing since the request was sent."""
PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Between two checks of a server that is down; the last one repeats."""
UNPROVED_PAUSE_SECONDS = 4.0
"""The longest pause while it is unknown whether a server that reports itself healthy is down or requests are bad."""
QUIET_SECONDS = 15.0
"""A server's health is checked when it has had requests for this long and has answered none of them."""
USUAL = 2.0
"""And for at least this many times its slowest response: a slow model is not a quiet one."""
LOOKS_SECONDS = 10.0
"""Between two health checks of a quiet server."""
TRUSTED_TRIES = 3
"""Further attempts counted against a request no longer pause its server by a Retry-After, unless that of a 429."""
FIRST_NOT_ALLOWED = {401: 1, 403: 3}
"""This many first responses with the status end the run: 401 is about the caller, 403 may be about the request."""
LATER_NOT_ALLOWED = 20
"""This many in a row do so once a server has answered otherwise: a token has expired."""


def is_refusal(failure: Failure) -> bool:
    """Whether a failure may come from a server that is away or overloaded."""
    if failure.kind == "status":
        return failure.status in REFUSALS
    return failure.kind in ("refused", "connection", "timeout")


def minutes_text(seconds: float) -> str:
    """A duration in minutes, as text."""
    minutes = seconds / 60
    return f"{minutes:.3g} minute{'' if minutes == 1 else 's'}"


def elsewhere(step: int, count: int) -> int:
    """Which of ``count`` positions to try in ``step`` 1, 2, 3 ...: far from earlier ones (1/2, 1/4, 3/4, 1/8 ...)."""
    share, part = 0.0, 0.5
    while step:
        share += part * (step & 1)
        step >>= 1
        part /= 2
    return min(count - 1, int(share * count))


class Tries:
    """The failed attempts of one request: those that count against it, and those not decided yet (pending).

    ``pending_break``: a pending one is a connection that broke before or at the start of an outage, or a time-out.
    """

    __slots__ = ("breaks", "counted", "deaths", "late", "made", "outage", "pending", "pending_break", "spell")

    def __init__(self) -> None:
        self.made = 0
        """All attempts."""
        self.counted = 0
        self.breaks = 0
        """How often its connection broke, or it timed out, in a real outage."""
        self.deaths = 0
        """How often its model server died of it, or of another request."""
        self.late = False
        """Whether the last attempt timed out."""
        self.pending = 0
        self.pending_break = False
        self.outage: Outage | None = None
        self.spell = 0

    @property
    def suspect(self) -> bool:
        """Whether the request is more likely to blame than a server that reports itself healthy."""
        return self.late or self.counted > 0

    def settle(self) -> None:
        """Decide on pending attempts, if the server has answered a request since."""
        outage = self.outage
        if outage is None or self.spell == outage.spell:
            return
        if self.spell not in outage.real:
            self.counted += self.pending if self.counted else min(self.pending, 1)
        elif self.pending_break:
            self.breaks += 1
        self.pending, self.pending_break, self.outage = 0, False, None


class Outage:
    """The state of one model server that refuses requests; ``limit_seconds`` of 0 blames each request at once.

    A spell lasts from a refusal to the next response. It was a ``real`` outage, however short, if the server was not
    healthy, or refused a request that it had answered before, or refused two requests without earlier refusals counted
    against them; the last does not apply if the spell ends with a repeated response to an earlier request.
    """

    def __init__(self, limit_seconds: float = 0.0) -> None:
        self.limit_seconds = limit_seconds
        self.since: float | None = None
        """When the spell began; None while the server answers."""
        self.quiet_since: float | None = None
        """Since when requests have had no response, if the health check also fails; otherwise None."""
        self.cause = ""
        """A description of the last refusal."""
        self.down = False
        self.holds = False
        """Whether nothing is to be sent, except a ``probe``."""
        self.probe = False
        self.resume_at = 0.0
        """The end of the rest that the server asked for."""
        self.spell = 0
        self.real: set[int] = set()
        self.served = False
        """Whether it has ever answered a request."""
        self._last_answer = self._looked_at = self._unhealthy_at = -math.inf
        self._slowest = 0.0
        self._probes = 0
        self._healthy = self._proved_down = False
        self._fresh: list[Tries] = []
        self._not_allowed = 0

    def answered(self, now: float, seconds: float = 0.0) -> None:
        """The server has answered a request after ``seconds``, successfully or not: it is up."""
        self._last_answer = now
        if seconds > self._slowest:
            self._slowest = seconds
        self.quiet_since = None
        self._not_allowed = 0
        if self.since is not None:
            self._end_spell(now, real=self._proved_down or len(self._fresh) > 1)
        self.served = True

    def answered_again(self, now: float) -> None:
        """It has again answered a request that it had answered before: it is up, even if it refuses others."""
        self._last_answer = now
        self.quiet_since = None
        if self.since is not None:
            self._end_spell(now, real=self._proved_down)

    def restarted(self, now: float) -> None:
        """The server has been restarted and is healthy."""
        self.quiet_since = None
        if self.since is not None:
            self._end_spell(now, real=True)

    def _end_spell(self, now: float, *, real: bool) -> None:
        if real:
            self.real.add(self.spell)
        self.spell += 1
        self.since = None
        self._probes = 0
        self.down = self.probe = self._healthy = self._proved_down = False
        self._fresh.clear()
        self.holds = now < self.resume_at

    def not_allowed(self, status: int, now: float) -> bool:
        """Count a response of 401 or 403; whether every request seems to get it, so that the run is to end."""
        first = not self.served
        so_far = self._not_allowed + 1
        if not first:
            self.answered(now)
        self._not_allowed = so_far
        return so_far >= (FIRST_NOT_ALLOWED[status] if first else LATER_NOT_ALLOWED)

    def refused(self, tries: Tries, failure: Failure, cause: str, started: float, now: float) -> int:
        """Count a refusal of a request sent at ``started``; the number of its attempts that now count against it."""
        tries.settle()
        if tries.outage is not self:  # pending ones are of another server, perhaps still down
            tries.outage, tries.spell, tries.pending, tries.pending_break = self, self.spell, 0, False
        tries.pending_break = tries.pending_break or failure.kind in ("connection", "timeout")
        asked = failure.retry_after_seconds or 0.0
        if not self.limit_seconds or self._answers_others(failure, started, now):
            tries.counted += 1
            if asked <= MAX_RETRY_AFTER_SECONDS and (failure.status == 429 or tries.counted <= TRUSTED_TRIES):
                self._rest_until(now, now + asked)
            return tries.counted
        late = tries.late = failure.kind == "timeout"
        after_answers = self.since is None
        if self.since is None:
            self.since = max(started, self._last_answer) if late else now
            self._proved_down = late and self._unhealthy_at > self.since
        self.cause = cause
        self.probe = False
        tries.pending += 1
        if not tries.suspect and tries not in self._fresh and len(self._fresh) < 2:
            self._fresh.append(tries)
        self._rest_until(now, min(now + asked, self.since + self.limit_seconds))
        if late or asked >= LONG_REST_SECONDS or now - self.since >= DOWN_SECONDS:
            self.down = self.holds = True
        if after_answers and tries.suspect and not late:
            return tries.counted + tries.pending
        return self.charged(tries)

    def _answers_others(self, failure: Failure, started: float, now: float) -> bool:
        """Whether the server answers other requests while it refuses one that was sent at ``started``.

        A request that timed out has waited long: the server may have hung since shortly after it was sent.
        """
        if failure.kind == "timeout" and now - self._last_answer >= max(DOWN_SECONDS, (now - started) / 2):
            return False
        return self._last_answer >= started

    def charged(self, tries: Tries) -> int:
        """The number of attempts of a refused request that count against it by now."""
        tries.settle()
        if self.since is None or tries.outage is not self:
            return tries.counted
        real = self._proved_down or (not self.served and len(self._fresh) > 1)
        return tries.counted + (tries.pending if self._healthy and not real and tries.suspect else 0)

    def _rest_until(self, now: float, resume_at: float) -> None:
        if resume_at > max(now, self.resume_at):
            self.resume_at = resume_at
            self.holds = True

    def rested(self, now: float) -> None:
        """End the rest that the server asked for, unless it has asked again."""
        self.holds = self.down or now < self.resume_at

    def asked(self, *, healthy: bool, cause: str = "") -> None:
        """Record the result of a health check of a server that is down."""
        self._healthy = healthy
        self._proved_down = self._proved_down or not healthy
        self.cause = cause or self.cause

    def give_one(self) -> None:
        """Allow one request to be sent to it."""
        self.probe = self.down
        self._probes += self.down

    @property
    def probes(self) -> int:
        """How many requests were given to a healthy server that has refused every request so far.

        Whether it is down or they are to blame is unknown, so the next one should differ from them. 0 once it is known.
        """
        return self._probes if self.down and self._healthy and not self.served and not self._proved_down else 0

    def is_quiet(self, busy_since: float, now: float) -> bool:
        """Whether its health is to be checked, because it has had requests since ``busy_since`` and answers none."""
        if not self.limit_seconds or self.since is not None or now - self._looked_at < LOOKS_SECONDS:
            return False
        return now - max(busy_since, self._last_answer) >= max(QUIET_SECONDS, USUAL * self._slowest)

    def asked_while_quiet(self, detail: str, busy_since: float, now: float) -> None:
        """Record a health check of a quiet server; ``detail`` is empty if it is healthy, so presumably only slow.

        If the check fails, the run reports that the server hangs, and blames no request. Requests in flight keep
        waiting: a model that does one thing at a time does not answer a health check while it works.
        """
        self._looked_at = now
        if not detail:
            self.quiet_since = None
        elif self._last_answer < now and self.since is None:
            self._unhealthy_at = now
            self.cause = detail
            if self.quiet_since is None:
                self.quiet_since = max(busy_since, self._last_answer)

    @property
    def away(self) -> bool:
        """Whether the server takes no requests, as far as known."""
        return self.down or self.quiet_since is not None

    def refused_again(self, failure: Failure, cause: str, now: float) -> None:
        """The server has refused a request that it had answered before."""
        self._proved_down = True
        self.cause = cause
        left = self.limit_seconds if self.since is None else self.since + self.limit_seconds - now
        self._rest_until(now, now + min(failure.retry_after_seconds or 0.0, left))

    def passed(self, now: float) -> bool:
        """Whether the server has answered nothing for ``limit_seconds``."""
        return self.since is not None and now - self.since >= self.limit_seconds

    def lasts(self, now: float) -> float:
        """Seconds for which the server has answered nothing."""
        since = self.quiet_since if self.since is None else self.since
        return 0.0 if since is None else now - since

    def pause(self, looks: int, now: float) -> float:
        """Seconds until the next check, after ``looks`` checks: at most until ``limit_seconds`` have passed."""
        pause = PAUSES_SECONDS[min(looks, len(PAUSES_SECONDS) - 1)]
        if self.probes:
            pause = min(pause, UNPROVED_PAUSE_SECONDS)
        if self.since is None or self.passed(now):  # others answer, so checks go on for as long as it takes
            return pause
        return min(pause, self.since + self.limit_seconds - now)
