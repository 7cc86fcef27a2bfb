"""Whether a model server is away or overloaded, so that its refusals are no item's fault: a decision in counted time.

While a server answers some requests and refuses others, a refusal counts against the request. While it refuses
everything, it does not: the server is down then, and is asked for its health with growing pauses. Once it is healthy,
it is sent a request that it had answered before: if it answers that one again, those that it has refused are to blame;
if not, it is down still. A server that has not answered any request yet is given those that wait, one at a time.
Seconds are those of one clock that only rises.
"""

from __future__ import annotations

import math

from tasks.domain.retry import MAX_RETRY_AFTER_SECONDS, Failure

REFUSALS = frozenset({429, 502, 503, 504})
"""Statuses with which a server, or the gateway in front of it, takes no request for now (RFC 9110, RFC 6585)."""
NOT_ALLOWED = {401: "no valid credentials: see `headers`", 403: "no permission: see `headers`"}
"""What a status says of the caller."""
DOWN_SECONDS = 1.0
"""A server that has refused everything for this long is down."""
LONG_REST_SECONDS = 5.0
"""So is one that asks for a rest of this length when it has answered nothing since it was asked."""
PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Between two looks at a server that is down; the last one is repeated."""
UNPROVED_PAUSE_SECONDS = 4.0
"""At most, while it is open whether a server that calls itself healthy is down, or the first requests are to blame."""
QUIET_SECONDS = 15.0
"""A server that has had requests for this long, and has answered none of them, is asked for its health."""
USUAL = 2.0
"""And so many times as long as it has needed for its slowest answer: a slow model is not a quiet one."""
LOOKS_SECONDS = 10.0
"""Between two questions for the health of a quiet server."""
TRUSTED_TRIES = 3
"""A request with this many tries counted against it does not pause its server by a Retry-After any more."""
FIRST_NOT_ALLOWED = {401: 1, 403: 3}
"""This many first answers with the status end the run: 401 is about who asks, 403 may be about what is asked."""
LATER_NOT_ALLOWED = 20
"""This many in a row do, once a server has given other answers: a token has expired."""


def is_refusal(failure: Failure) -> bool:
    """Whether a failure may be that of a server which is away or overloaded."""
    if failure.kind == "status":
        return failure.status in REFUSALS
    return failure.kind in ("refused", "connection", "timeout")


def minutes_text(seconds: float) -> str:
    """A length of time in minutes, as it is told."""
    minutes = seconds / 60
    return f"{minutes:.3g} minute{'' if minutes == 1 else 's'}"


def elsewhere(step: int, count: int) -> int:
    """Which of ``count`` in a line to try in ``step`` 1, 2, 3 ...: far from those before (1/2, 1/4, 3/4, 1/8 ...)."""
    share, part = 0.0, 0.5
    while step:
        share += part * (step & 1)
        step >>= 1
        part /= 2
    return min(count - 1, int(share * count))


class Tries:
    """The failed tries of one request: those that count against it, and those that are not decided yet.

    A ``pending_break`` is a connection that broke before an outage, or when it began, or an answer that did not come.
    """

    __slots__ = ("breaks", "counted", "late", "made", "outage", "pending", "pending_break", "spell")

    def __init__(self) -> None:
        self.made = 0
        """All of them."""
        self.counted = 0
        self.breaks = 0
        """How often its connection broke, or no answer came, and the server was down then."""
        self.late = False
        """Whether the last one brought no answer in time."""
        self.pending = 0
        self.pending_break = False
        self.outage: Outage | None = None
        self.spell = 0

    @property
    def suspect(self) -> bool:
        """Whether it rather is to blame than a server that says that it is healthy."""
        return self.late or self.counted > 0

    def settle(self) -> None:
        """Decide on pending tries, if the server has answered a request since."""
        outage = self.outage
        if outage is None or self.spell == outage.spell:
            return
        if self.spell not in outage.real:
            self.counted += self.pending if self.counted else min(self.pending, 1)
        elif self.pending_break:
            self.breaks += 1
        self.pending, self.pending_break, self.outage = 0, False, None


class Outage:
    """What is known of one model server that refuses requests; ``limit_seconds`` of 0 blames each request at once.

    A spell lasts from a refusal to the next answer. It was a ``real`` outage, if a short one perhaps, if the server did
    not say that it was healthy, or refused a request that it had answered before, or, unless it answered that one
    again, two requests that it had not refused before while it answered others.
    """

    __slots__ = (
        "_fresh", "_healthy", "_last_answer", "_looked_at", "_not_allowed", "_probes", "_proved_down", "_slowest",
        "_unhealthy_at", "cause", "down", "holds", "limit_seconds", "probe", "quiet_since", "real", "resume_at",
        "served", "since", "spell",
    )  # fmt: skip

    def __init__(self, limit_seconds: float = 0.0) -> None:
        self.limit_seconds = limit_seconds
        self.since: float | None = None
        """When the spell began; None while the server answers."""
        self.quiet_since: float | None = None
        """Since when requests have had no answer, and the health address gives none either; None while it does."""
        self.cause = ""
        """What the last refusal was."""
        self.down = False
        self.holds = False
        """Whether nothing is to be sent, but a ``probe``."""
        self.probe = False
        self.resume_at = 0.0
        """Until when the server asked to be left alone."""
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
        """The server has answered a request, after ``seconds``, whatever it said of that one: it is there."""
        self._last_answer = now
        if seconds > self._slowest:
            self._slowest = seconds
        self.quiet_since = None
        self._not_allowed = 0
        if self.since is not None:
            self._end_spell(now, real=self._proved_down or len(self._fresh) > 1)
        self.served = True

    def answered_again(self, now: float) -> None:
        """It has answered a request that it had answered before, so it is there, whatever others it refuses."""
        self._last_answer = now
        self.quiet_since = None
        if self.since is not None:
            self._end_spell(now, real=self._proved_down)

    def restarted(self, now: float) -> None:
        """The server has been started, and is healthy."""
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
        """The server has answered 401 or 403; whether it says so to everybody, so that the run is to end."""
        first = not self.served
        so_far = self._not_allowed + 1
        if not first:
            self.answered(now)
        self._not_allowed = so_far
        return so_far >= (FIRST_NOT_ALLOWED[status] if first else LATER_NOT_ALLOWED)

    def refused(self, tries: Tries, failure: Failure, cause: str, started: float, now: float) -> int:
        """Count a refusal of a request sent at ``started``; how many of its tries count against it now."""
        tries.settle()
        if tries.outage is not self:  # of another server that is down still, perhaps
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

        One without an answer in time has waited for long: the server may hang since shortly after it was sent.
        """
        if failure.kind == "timeout" and now - self._last_answer >= max(DOWN_SECONDS, (now - started) / 2):
            return False
        return self._last_answer >= started

    def charged(self, tries: Tries) -> int:
        """How many tries of a refused request count against it by now."""
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
        """The time is over for which the server asked to be left alone, unless it asked again."""
        self.holds = self.down or now < self.resume_at

    def asked(self, *, healthy: bool, cause: str = "") -> None:
        """What a server that is down has said of its health."""
        self._healthy = healthy
        self._proved_down = self._proved_down or not healthy
        self.cause = cause or self.cause

    def give_one(self) -> None:
        """Let one request be sent to it."""
        self.probe = self.down
        self._probes += self.down

    @property
    def probes(self) -> int:
        """How many requests were given to a server that is healthy, and has refused every one that it was ever sent.

        It is open whether it is down or they are to blame, so the next one is to be unlike them. 0 once that is known.
        """
        return self._probes if self.down and self._healthy and not self.served and not self._proved_down else 0

    def is_quiet(self, busy_since: float, now: float) -> bool:
        """Whether its health is to be asked, since it has had requests since ``busy_since`` and answers none."""
        if not self.limit_seconds or self.since is not None or now - self._looked_at < LOOKS_SECONDS:
            return False
        return now - max(busy_since, self._last_answer) >= max(QUIET_SECONDS, USUAL * self._slowest)

    def asked_while_quiet(self, said: str, busy_since: float, now: float) -> None:
        """What a quiet server has said of its health: empty if it is healthy, and slow then, as far as is known.

        If it is not, the run says that it hangs, and no request is blamed for it. Those under way go on waiting: a
        model that does one thing at a time does not answer this question either while it works.
        """
        self._looked_at = now
        if not said:
            self.quiet_since = None
        elif self._last_answer < now and self.since is None:
            self._unhealthy_at = now
            self.cause = said
            if self.quiet_since is None:
                self.quiet_since = max(busy_since, self._last_answer)

    @property
    def away(self) -> bool:
        """Whether the server takes no request, as far as is known."""
        return self.down or self.quiet_since is not None

    def refused_again(self, failure: Failure, cause: str, now: float) -> None:
        """It has refused a request that it had answered before."""
        self._proved_down = True
        self.cause = cause
        left = self.limit_seconds if self.since is None else self.since + self.limit_seconds - now
        self._rest_until(now, now + min(failure.retry_after_seconds or 0.0, left))

    def passed(self, now: float) -> bool:
        """Whether the server has answered nothing for as long as may be waited for it."""
        return self.since is not None and now - self.since >= self.limit_seconds

    def lasts(self, now: float) -> float:
        """Seconds for which the server has answered nothing."""
        since = self.quiet_since if self.since is None else self.since
        return 0.0 if since is None else now - since

    def pause(self, looks: int, now: float) -> float:
        """Seconds until it is looked at again, after so many looks: not beyond the moment at which its time passes."""
        pause = PAUSES_SECONDS[min(looks, len(PAUSES_SECONDS) - 1)]
        if self.probes:
            pause = min(pause, UNPROVED_PAUSE_SECONDS)
        if self.since is None or self.passed(now):  # others answer, so this one is looked at for as long as it takes
            return pause
        return min(pause, self.since + self.limit_seconds - now)
